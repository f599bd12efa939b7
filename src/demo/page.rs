//! How the demo is printed: text for a terminal of 50 lines and 100 columns, or a JSON object for each question.

use super::question::{Question, Summary, Tone, json_command};
use crate::ops::inspect::Print;
use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;

/// The destination of the demo's output.
pub(super) struct Page<'a> {
    out: &'a mut dyn Write,
    print: Print,
    /// `http://` and the address of the instance.
    url: String,
    is_coloured: bool,
}

impl<'a> Page<'a> {
    /// A page about the instance at `url`; coloured if stdout is a terminal that allows it.
    pub(super) fn new(out: &'a mut dyn Write, print: Print, url: String) -> Self {
        Self { out, print, url, is_coloured: crate::telemetry::is_coloured(&io::stdout()) }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The address as used in commands.
    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn style(&self, style: Style) -> Style {
        if self.is_coloured { style } else { Style::new() }
    }

    fn title(&mut self, title: &str) -> io::Result<()> {
        let bold = self.style(Style::new().bold());
        writeln!(self.out, "\n{bold}{title}{bold:#}")
    }

    fn command(&mut self, lines: &[String]) -> io::Result<()> {
        let dimmed = self.style(Style::new().dimmed());
        lines.iter().try_for_each(|line| writeln!(self.out, "  {dimmed}{line}{dimmed:#}"))
    }

    /// Introduces the instance and its data.
    pub(super) fn begin(&mut self, events: usize, directory: &Path) -> io::Result<()> {
        if self.print == Print::Table {
            let bold = self.style(Style::new().bold());
            writeln!(self.out, "{bold}Foretell demo{bold:#} at {}, data in {}", self.url, directory.display())?;
            writeln!(
                self.out,
                "{events} sample events: a month of five people's logins, a password attack, a clinic's visits."
            )?;
            writeln!(
                self.out,
                "Each answer is summarised in one line; run a command, or `foretell demo --json`, to see its JSON."
            )?;
        }
        self.out.flush()
    }

    /// Prints a question with its answer.
    pub(super) fn answer(&mut self, question: &Question, answer: &Value) -> io::Result<()> {
        let Question { title, request, summary } = question;
        if self.print == Print::Json {
            let url = format!("{}{}", self.url, request.path());
            let body = request.body().and_then(|body| serde_json::from_str::<Value>(body).ok());
            let request = json!({"method": request.method(), "url": url, "body": body});
            writeln!(self.out, "{}", json!({"question": title, "request": request, "answer": answer}))?;
            return self.out.flush();
        }
        self.title(title)?;
        let command = request.command(self.host());
        self.command(&command)?;
        let Summary { result: (result, tone), details } = summary(answer);
        let colour = match tone {
            Tone::Good => AnsiColor::Green,
            Tone::Caution => AnsiColor::Yellow,
            Tone::Bad => AnsiColor::Red,
        };
        let colour = self.style(colour.on_default().bold());
        writeln!(self.out, "  -> {colour}{result}{colour:#}{details}")?;
        self.out.flush()
    }

    /// Explains the scores of logins, with the thresholds of an answer.
    pub(super) fn scale(&mut self, answer: &Value) -> io::Result<()> {
        if self.print == Print::Json {
            return Ok(());
        }
        let thresholds = &answer["thresholds"];
        let (challenge_at, deny_at) = (&thresholds["challenge_at"], &thresholds["deny_at"]);
        writeln!(
            self.out,
            "\nA login's score is not a probability: the less a login resembles the user's, the higher it is."
        )?;
        writeln!(
            self.out,
            "From {challenge_at} it is challenged, from {deny_at} denied; each answer has these thresholds."
        )
    }

    /// Suggests next steps.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.print == Print::Table {
            let policy = r#"{"rules":[{"code":"ABROAD","when":"new_country","decision":"deny"}]}"#;
            let policy = json_command("curl -X PUT", self.host(), "/v1/policies/login", policy);
            self.title("Publish a policy of your own, then repeat the hotel request: the login is denied.")?;
            self.command(&policy)?;
            self.title("Next steps")?;
            writeln!(self.out, "  API documentation, with requests to try: {}/docs", self.url)?;
            writeln!(self.out, "  An instance that keeps its data: foretell serve")?;
            writeln!(self.out, "  Ctrl-C ends the demo and removes its data.")?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::question::{of_logins, of_visits};
    use super::*;

    fn printed(is_coloured: bool) -> String {
        let mut out = Vec::new();
        let url = "http://127.0.0.1:8080".to_owned();
        let mut page = Page { out: &mut out, print: Print::Table, url, is_coloured };
        for question in of_logins().iter().chain(&of_visits()) {
            page.answer(question, &json!({"decision": "allow", "level": "low", "score": 0.1})).unwrap();
        }
        page.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted_and_change_no_word() {
        let (plain, coloured) = (printed(false), printed(true));
        assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
        let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
        assert_eq!(escape.replace_all(&coloured, ""), plain);
    }
}
