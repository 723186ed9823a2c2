//! clusterd: see the library for the code map. Here the command line turns into an exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use clusterd::cli::commands::execute;
use clusterd::cli::output::Failure;
use clusterd::cli::{Cli, gone, with_verb};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let code = match Cli::try_parse_from(with_verb(words, Path::is_file)) {
        Ok(cli) => execute(cli).unwrap_or_else(|failure| report(&failure, json)),
        Err(error) => misspelt(&error, json),
    };
    // The kernel keeps eight bits of it in any case.
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn misspelt(error: &clap::Error, json: bool) -> i32 {
    if let Some(why) = gone::instead(error) {
        return report(&Failure::usage(why), json);
    }
    if json && error.use_stderr() && error.kind() != ErrorKind::DisplayHelp {
        return report(&Failure::usage(error.render()), true);
    }
    // Where to, and whether in colour, is clap's; that nobody reads it is no failure.
    let _ = error.print();
    error.exit_code()
}

fn report(failure: &Failure, json: bool) -> i32 {
    failure.print(json);
    failure.code()
}
