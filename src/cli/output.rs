//! Options that all `show` commands have, and how they print a response.

use clap::{Args, ValueEnum};

use super::{Failure, Socket, io};
use crate::control::{
    Query, Response,
    render::{self, Layout, Pages},
};

#[derive(Args, Debug)]
pub(super) struct Common {
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Another form than text of at most 80 columns, or as wide as the terminal
    #[arg(long, short, value_enum, value_name = "FORM")]
    output: Option<Output>,
    /// Tables without heading and legend
    #[arg(long)]
    no_headers: bool,
    /// Only the number of rows
    #[arg(long, conflicts_with_all = ["json", "output", "no_headers"])]
    count: bool,
    /// Print again every 2 seconds, or as often as given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
    #[command(flatten)]
    pub(super) socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Json,
    Yaml,
    /// Text with all columns, a line per row however long
    Wide,
}

impl Common {
    pub(super) fn show(&self, query: &Query) -> Result<(), Failure> {
        self.repeat(|| {
            let response = self.socket.request(query.clone())?;
            self.print(&response)
        })
    }

    /// Prints the summary, with exit status 4 while the node is not ready, for use as a probe.
    pub(super) fn show_summary(&self) -> Result<(), Failure> {
        self.repeat(|| {
            let response = self.socket.request(Query::Summary)?;
            self.print(&response)?;
            match response {
                Response::Summary(summary) if !summary.ready => Err(Failure::NotReady),
                _ => Ok(()),
            }
        })
    }

    pub(super) fn show_pages(&self, query: &Query) -> Result<(), Failure> {
        self.repeat(|| self.socket.show_pages(query.clone(), self.pages(Pages::text)).map(|_| ()))
    }

    /// Shows all paths of one prefix. If there are none, fails with the text `missing`.
    pub(super) fn show_paths(&self, query: &Query, missing: &str) -> Result<(), Failure> {
        // With -o wide, a table with one line per path.
        let text = if self.output == Some(Output::Wide) { Pages::text } else { Pages::paragraphs };
        self.repeat(|| match self.socket.show_pages(query.clone(), self.pages(text))? {
            0 => Err(Failure::Runtime(missing.to_owned())),
            _ => Ok(()),
        })
    }

    fn pages(&self, text: fn(Layout) -> Pages) -> Pages {
        match self.output() {
            _ if self.count => Pages::count(),
            Some(Output::Json) => Pages::json(),
            Some(Output::Yaml) => Pages::yaml(),
            _ => text(self.layout()),
        }
    }

    pub(super) fn print(&self, response: &Response) -> Result<(), Failure> {
        io::print(&self.render(response)?)
    }

    pub(super) fn render(&self, response: &Response) -> Result<String, Failure> {
        if self.count {
            return match rows(response) {
                Some(rows) => Ok(format!("{rows}\n")),
                None => Err(Failure::Usage("--count: this screen has no rows; leave it out".into())),
            };
        }
        Ok(match self.output() {
            Some(Output::Json) => render::json(response),
            Some(Output::Yaml) => render::yaml(response),
            _ => render::text(response, io::now(), self.layout()),
        })
    }

    pub(super) fn output(&self) -> Option<Output> {
        if self.json { Some(Output::Json) } else { self.output }
    }

    pub(super) fn layout(&self) -> Layout {
        let layout = if self.output == Some(Output::Wide) { Layout::wide() } else { io::layout() };
        Layout { headings: !self.no_headers, ..layout }
    }

    /// Runs once, or with `--watch` until the output is closed. A daemon that restarts is waited
    /// for.
    pub(super) fn repeat(&self, once: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(seconds) = self.watch else { return once() };
        let mut was_reached = false;
        loop {
            if !io::print_on(io::new_screen())? {
                return Ok(());
            }
            match once() {
                Err(failure @ Failure::Usage(_)) => return Err(failure),
                Err(Failure::NotReady | Failure::Partial) | Ok(()) => was_reached = true,
                Err(failure) if !was_reached => return Err(failure),
                Err(failure) => io::print(&self.layout().mark(&failure.to_string()))?,
            }
            io::wait(std::time::Duration::from_secs(seconds.into()));
        }
    }
}

/// Rows of a table.
fn rows(response: &Response) -> Option<usize> {
    match response {
        Response::Neighbors(list) => Some(list.len()),
        Response::Bfd(list) => Some(list.len()),
        Response::Policies(list) => Some(list.len()),
        Response::Events(list) => Some(list.len()),
        Response::Host(host) => Some(host.interfaces.len()),
        Response::Interfaces(list) => Some(list.len()),
        _ => None,
    }
}
