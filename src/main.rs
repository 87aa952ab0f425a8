//! The `vaquita` binary: hands its arguments to the command line front.

fn main() {
    let argv =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let code = vaquita::cli::main(argv);
    vaquita::sys::fault::report();
    std::process::exit(code);
}
