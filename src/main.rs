//! The `vaquita` binary: hands its arguments to the command line front.
fn main() {
    println!("vaquita {}", env!("CARGO_PKG_VERSION"));
}
