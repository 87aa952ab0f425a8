//! The configuration of a delta image, byte for byte as balenaEngine writes it.
//!
//! Go's encoding of an image with nothing but a creation time, two container configurations and the layers: no
//! platform, no history. Field order, nulls and escapes are part of the format, since the image ID is a digest of them.

use super::{LABEL_BASE, LABEL_CONFIG};
use crate::digest::Digest;
use crate::json::quote_as_go;

/// Go's zero value of a container configuration, up to the value of `Labels`.
const ZERO_CONFIG: &str = concat!(
    r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"#,
    r#""AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"#,
    r#""Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":"#,
);

/// The configuration of the delta image from `base` to the image with the configuration `target_config`. `created` is a
/// time as Go prints it (RFC 3339 in UTC, up to nine decimals, no trailing zeros); `diff_ids` are those of the delta
/// layers, bottom first.
pub fn write(created: &str, base: &Digest, target_config: &str, diff_ids: &[Digest]) -> String {
    let created = quote_as_go(created);
    let target_config = quote_as_go(target_config);
    let diff_ids: Vec<String> = diff_ids.iter().map(|diff_id| format!("\"{diff_id}\"")).collect();
    let diff_ids = diff_ids.join(",");
    format!(
        "{{\"created\":{created},\"container_config\":{ZERO_CONFIG}null}},\"config\":{ZERO_CONFIG}\
         {{\"{LABEL_BASE}\":\"{base}\",\"{LABEL_CONFIG}\":{target_config}}}}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{diff_ids}]}}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::balena::{BalenaDelta, find};
    use crate::oci::config::ImageConfig;

    #[test]
    fn writes_what_is_found_again() {
        let target_config = "{\"rootfs\":{\"type\":\"<layers>\",\"diff_ids\":[\"\\u0041\"]},\n\t\"é\\\"\":\"\u{2028}\"}";
        let diff_id = Digest::of(b"layer");
        let base = Digest::of(b"base");
        let text = write("2026-01-02T03:04:05.6Z", &base, target_config, &[diff_id]);
        let config = ImageConfig::parse(text.as_bytes(), "x").unwrap();
        assert_eq!(config.created.as_deref(), Some("2026-01-02T03:04:05.6Z"));
        assert_eq!(config.diff_ids().unwrap(), [diff_id]);
        assert_eq!(config.platform(), None);
        let delta = BalenaDelta { base, target_config: target_config.into() };
        assert_eq!(find(&config).unwrap(), Some(delta));
    }
}
