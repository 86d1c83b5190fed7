//! The `fog` program. Everything is in the library; this is its door.

fn main() -> std::process::ExitCode {
    fog::cli::main(std::env::args_os())
}
