//! `delta index`: the index of an image as an artifact (`oci::artifact`) beside it.
//!
//! It has a blob for each layer of the image, which depends on nothing but the layer: an image that shares layers with one whose
//! index is there already shares their blobs.

use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fs_err::{File, OpenOptions};

use super::Engine;
use super::basis::Basis;
use super::index::plan;
use super::progress::{Event, Report};
use super::publish::{Blob, PublishedDelta, bytes_of, push_blobs};
use crate::delta::index::{self, Span};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Context, Error, Kind, Result};
use crate::oci::artifact::{self, Format, Offer, empty_blob};
use crate::oci::manifest::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Push};
use crate::store::Stage;

impl Engine {
    /// Makes the index of `image`, and pushes it to `repository`, which has the image. On success the registry tells of it to
    /// whoever pulls that.
    pub fn publish_index(
        &self,
        image: &str,
        repository: &Reference,
        report: Report,
    ) -> Result<PublishedDelta> {
        let _work = self.store.work()?;
        let image = self.store.find_image(image)?;
        let client = Client::new(self.registry.clone())?;
        let subject = self.subject_in(&client, repository, &image)?;
        let (stage, push) = (self.store.stage()?, Push::new(&client, repository));
        let mut diff_ids = image.config.diff_ids()?;
        diff_ids.sort_unstable();
        diff_ids.dedup();
        let mut blobs = Vec::new();
        for diff_id in &diff_ids {
            let path = stage.path().join(blobs.len().to_string());
            let (descriptor, _) = self.make_index(diff_id, &path, report)?;
            blobs.push(Blob { descriptor, path });
        }
        push_blobs(&push, &blobs)?;
        let layers: Vec<Descriptor> = blobs.into_iter().map(|blob| blob.descriptor).collect();
        let (id, format) = (image.id, Format::Index);
        let mut offer = Offer { artifact: id, format, basis: id, target: id, bytes: 0 };
        let (document, entry) =
            artifact::write(&mut offer, &subject.descriptor, &empty_blob(), &layers);
        push.artifact(document.as_bytes(), &entry, &subject.descriptor.digest()?)?;
        let layers_bytes = bytes_of(&diff_ids, &image, &subject)?;
        Ok(PublishedDelta { digest: offer.artifact, layers_bytes, delta_bytes: offer.bytes })
    }

    /// Writes the index of a layer to `path`; also gives the length of its head.
    fn make_index(
        &self,
        diff_id: &Digest,
        path: &Path,
        report: Report,
    ) -> Result<(Descriptor, u64)> {
        if !cfg!(feature = "make-deltas") {
            let message = "this vaquita is built without what makes indices: build it with --features make-deltas";
            return Err(Error::new(Kind::Unsupported, message));
        }
        let what = || "write an index".to_string();
        report(Event::Indexing { layer: diff_id.short() });
        let file = OpenOptions::new().write(true).create_new(true).open(path).context(what)?;
        let mut file = BufWriter::new(&file);
        let mut out = HashingWriter::new(&mut file as &mut dyn Write);
        let mut tar = self.layer_tar(diff_id)?;
        let bytes = crate::delta::ReadAt::size_bytes(&tar);
        let head = index::make(&mut tar, bytes, &mut out)
            .map_err(|e| Error::new(e.kind(), format!("index of layer {diff_id}")).caused_by(e))?;
        let size_bytes = out.count_bytes();
        let digest = out.finish().0;
        file.flush().context(what)?;
        report(Event::Indexed { layer: diff_id.short() });
        Ok((artifact::index_blob(diff_id, digest, size_bytes, head), head))
    }

    /// What who has `basis` would fetch of the layers `missing`.
    pub(super) fn plan_index(
        &self,
        basis: &mut Basis,
        missing: &[Digest],
        stage: &Stage,
        report: Report,
    ) -> Result<u64> {
        let (have, mut bytes) = (basis.have()?, 0_u64);
        let path = stage.path().join("index");
        for diff_id in missing {
            let (blob, head) = self.make_index(diff_id, &path, report)?;
            let what = || "read an index".to_string();
            let file = File::open(&path).context(what)?;
            let mut parts = |spans: &[Span]| -> Result<Vec<u8>> {
                let mut bytes = Vec::new();
                for span in spans {
                    let mut part = vec![0; (span.end - span.start) as usize];
                    file.file().read_exact_at(&mut part, span.start).context(what)?;
                    bytes.append(&mut part);
                }
                Ok(bytes)
            };
            bytes = bytes.saturating_add(plan(&mut parts, blob.size, head, &have)?.bytes);
            fs_err::remove_file(&path).context(what)?;
        }
        Ok(bytes)
    }
}
