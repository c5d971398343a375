//! The one text buffer of an environment, its log level, and indentation.
//!
//! Invariant: at level `None` nothing gets in at all.

/// Levels of log lines; a line is printed iff the current level is not above its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    None,
}

const NAMES: [(Level, &str); 6] = [
    (Level::Debug, "DEBUG"),
    (Level::Info, "INFO"),
    (Level::Warn, "WARN"),
    (Level::Error, "ERROR"),
    (Level::Fatal, "FATAL"),
    (Level::None, "NONE"),
];

impl Level {
    /// By name, whatever the case.
    pub fn parse(name: &str) -> Result<Level, String> {
        let found = NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name));
        found
            .map(|(level, _)| *level)
            .ok_or_else(|| format!("log levels must be either of [{}]", NAMES.map(|(_, n)| n).join(" ")))
    }

    fn name(self) -> &'static str {
        NAMES[self as usize].1
    }
}

/// What a command has printed so far.
pub struct Output {
    text: String,
    pub level: Level,
}

impl Output {
    pub fn new() -> Output {
        Output { text: String::new(), level: Level::Debug }
    }

    /// Command output.
    pub fn print(&mut self, text: &str) {
        if self.level != Level::None {
            self.text += text;
        }
    }

    /// Command output and a newline.
    pub fn println(&mut self, text: &str) {
        self.print(text);
        self.print("\n");
    }

    /// A log line.
    pub fn log(&mut self, level: Level, text: &str) {
        if self.level <= level {
            self.println(&format!("{} {text}", level.name()));
        }
    }

    /// Starts a buffer of its own for what is to be indented; give what it returns to `indent`.
    pub fn begin(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Appends what was printed since `begin`, indented, to `outer`.
    pub fn indent(&mut self, outer: String) {
        let inner = std::mem::replace(&mut self.text, outer);
        for line in inner.lines() {
            self.println(&format!("  {line}"));
        }
    }

    /// The text of a finished command.
    pub fn finish(&mut self, result: Result<(), String>) -> String {
        let mut text = std::mem::take(&mut self.text);
        if let Err(why) = result {
            text += &why;
        }
        if text.is_empty() { "ok".to_owned() } else { text }
    }
}
