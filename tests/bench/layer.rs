//! Unpacks a layer and prints what it cost: `layer-bench LAYER.tar[.gz] STAGE [direct]`, or `layer-bench rebuild STAGE`.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Instant;

use vaquita::digest::{Digest, HashingReader};
use vaquita::layer::{LayerTar, open_compressed, read_ahead, unpack};
use vaquita::sys::file::open_directory;

fn field(file: &str, name: &str) -> u64 {
    let text = fs_err::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or("0").parse().unwrap_or(0)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let start = Instant::now();
    if args[1] == "rebuild" {
        let dir = open_directory(std::path::Path::new(&args[2])).unwrap();
        let mut tar = HashingReader::new(LayerTar::open(dir.as_fd(), "layer").unwrap());
        std::io::copy(&mut tar, &mut std::io::sink()).unwrap();
        let expected = tar.count_bytes();
        let (digest, layer): (Digest, LayerTar) = tar.finish();
        assert_eq!(digest, layer.diff_id());
        println!("rebuilt {expected} bytes in {:?}", start.elapsed());
        println!("peak resident {} kB", field("/proc/self/status", "VmHWM:"));
        return;
    }
    let stage = std::path::Path::new(&args[2]);
    fs_err::create_dir(stage).unwrap();
    let stage = open_directory(stage).unwrap();
    let mut blob = HashingReader::new(fs_err::File::open(&args[1]).unwrap());
    let mut tar = open_compressed(Box::new(&mut blob)).unwrap();
    let result = if args.len() > 3 {
        unpack(&mut tar, stage.as_fd(), &args[1])
    } else {
        read_ahead(&mut tar, &mut |tar: &mut dyn Read| unpack(tar, stage.as_fd(), &args[1]))
    };
    match result {
        Ok(unpacked) => println!("{unpacked:?}"),
        Err(error) => return println!("{error}"),
    }
    println!("wall {:?}", start.elapsed());
    println!("written {} kB", field("/proc/self/io", "write_bytes:") / 1024);
    println!("peak resident {} kB", field("/proc/self/status", "VmHWM:"));
}
