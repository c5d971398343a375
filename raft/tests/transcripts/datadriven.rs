//! The file format of all transcripts: directives, their arguments and input, the expected output.
//!
//! Leaves to others: what a command means. Invariant: whatever does not fit the grammar (README 2) is an
//! error with its line, never a guess.

use std::fmt::Write;

/// Answers the directives of one file; a fresh one per file.
pub trait Runner {
    /// The output of one directive. Panics where the original aborts.
    fn run(&mut self, directive: &Directive) -> String;
}

/// `key`, `key=value` or `key=(value,value)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    pub key: String,
    pub values: Vec<String>,
}

/// One command with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Line of the command in its file, from 1.
    pub line: usize,
    pub command: String,
    pub args: Vec<Arg>,
    pub input: String,
    /// Each line with its newline.
    pub expected: String,
    /// The line of the `----` in front of it, from 1.
    pub rule: usize,
}

impl Arg {
    /// The only value, parsed.
    pub fn scan<T: std::str::FromStr>(&self) -> T {
        assert_eq!(self.values.len(), 1, "{} takes one value", self.key);
        parse_or_panic(&self.values[0])
    }

    /// All values, parsed.
    pub fn scan_all<T: std::str::FromStr>(&self) -> Vec<T> {
        self.values.iter().map(|v| parse_or_panic(v)).collect()
    }

    /// The only value as a boolean.
    pub fn scan_bool(&self) -> bool {
        assert_eq!(self.values.len(), 1, "{} takes one value", self.key);
        parse_bool(&self.values[0]).unwrap_or_else(|| panic!("not a boolean: {}", self.values[0]))
    }
}

impl Directive {
    /// The argument `key`, if present.
    pub fn arg(&self, key: &str) -> Option<&Arg> {
        self.args.iter().find(|a| a.key == key)
    }

    /// The `at`-th argument's key, parsed.
    pub fn key<T: std::str::FromStr>(&self, at: usize) -> T {
        let arg = self.args.get(at).unwrap_or_else(|| panic!("{} lacks argument {at}", self.command));
        parse_or_panic(&arg.key)
    }

    /// All arguments without values, parsed.
    pub fn plain<T: std::str::FromStr>(&self) -> Vec<T> {
        self.args.iter().filter(|a| a.values.is_empty()).map(|a| parse_or_panic(&a.key)).collect()
    }

    /// Byte for byte, but for a missing final newline.
    pub fn compare(&self, produced: &str) -> Result<(), String> {
        let mut produced = produced.to_owned();
        if !produced.is_empty() && !produced.ends_with('\n') {
            produced.push('\n');
        }
        if produced == self.expected { Ok(()) } else { Err(self.diff(&produced)) }
    }

    fn diff(&self, produced: &str) -> String {
        let (want, got): (Vec<&str>, Vec<&str>) = (self.expected.lines().collect(), produced.lines().collect());
        let same = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
        let mut text = format!("line {}: {} {:?}\n", self.line, self.command, self.args_text());
        for line in &want[same.saturating_sub(4)..same] {
            writeln!(text, "   {line}").unwrap();
        }
        for line in want.iter().skip(same).take(12) {
            writeln!(text, " - {line}").unwrap();
        }
        for line in got.iter().skip(same).take(12) {
            writeln!(text, " + {line}").unwrap();
        }
        text
    }

    fn args_text(&self) -> Vec<String> {
        self.args
            .iter()
            .map(|a| if a.values.is_empty() { a.key.clone() } else { format!("{}={:?}", a.key, a.values) })
            .collect()
    }
}

/// Go's booleans.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn parse_or_panic<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("does not parse: {text:?}"))
}

/// All directives of a file.
pub fn parse(text: &str) -> Result<Vec<Directive>, String> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let mut directives = Vec::new();
    while let Some((line, text)) = lines.next() {
        let mut head = text.trim().to_owned();
        if head.is_empty() || head.starts_with('#') {
            continue;
        }
        while let Some(start) = head.strip_suffix('\\') {
            let (_, next) = lines.next().ok_or(format!("line {line}: nothing to continue with"))?;
            head = format!("{} {}", start.trim_end(), next.trim());
        }
        let (command, args) = parse_head(&head).map_err(|why| format!("line {line}: {why}"))?;
        // Only groups what stands between it and its `subtest end`: no input, no output.
        if command == "subtest" {
            continue;
        }
        let mut input = Vec::new();
        let rule = loop {
            match lines.next() {
                Some((at, "----")) => break at,
                Some((_, text)) => input.push(text),
                None => return Err(format!("line {line}: no ---- follows")),
            }
        };
        let input = input.join("\n").trim().to_owned();
        let expected = parse_expected(&mut lines).map_err(|why| format!("line {line}: {why}"))?;
        directives.push(Directive { line, command, args, input, expected, rule });
    }
    Ok(directives)
}

/// The text of a file with other outputs, one per directive. Only for outputs without blank lines.
pub fn rewrite(text: &str, directives: &[Directive], outputs: &[String]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut out, mut next) = (String::new(), 0);
    for (directive, output) in directives.iter().zip(outputs) {
        lines[next..directive.rule].iter().for_each(|line| out += &format!("{line}\n"));
        out += output;
        out += if output.is_empty() || output.ends_with('\n') { "" } else { "\n" };
        next = directive.rule + directive.expected.lines().count();
    }
    lines[next..].iter().for_each(|line| out += &format!("{line}\n"));
    out
}

fn parse_expected<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<String, String> {
    let mut expected = String::new();
    let Some((_, first)) = lines.next() else { return Ok(expected) };
    if first != "----" {
        let mut next = Some(first);
        while let Some(line) = next.filter(|l| !l.trim().is_empty()) {
            expected += line;
            expected.push('\n');
            next = lines.next().map(|(_, line)| line);
        }
        return Ok(expected);
    }
    let mut last_was_rule = false;
    loop {
        let (_, line) = lines.next().ok_or("the output has no end")?;
        if last_was_rule && line == "----" {
            expected.truncate(expected.len() - "----\n".len());
            break;
        }
        last_was_rule = line == "----";
        expected += line;
        expected.push('\n');
    }
    match lines.next() {
        Some((at, line)) if !line.trim().is_empty() => Err(format!("line {at} must be blank")),
        _ => Ok(expected),
    }
}

fn parse_head(head: &str) -> Result<(String, Vec<Arg>), String> {
    let (command, mut rest) = head.split_once(' ').unwrap_or((head, ""));
    let mut args = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return Ok((command.to_owned(), args));
        }
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        rest = &rest[end..];
        let mut values = Vec::new();
        if let Some(value) = rest.strip_prefix('=') {
            (values, rest) = parse_values(value)?;
        }
        if key.is_empty() {
            return Err("an argument without a key".to_owned());
        }
        args.push(Arg { key, values });
    }
}

/// The values behind a `=`, and what follows them.
fn parse_values(text: &str) -> Result<(Vec<String>, &str), String> {
    let Some(list) = text.strip_prefix('(') else {
        let end = text.find(' ').unwrap_or(text.len());
        return Ok((vec![text[..end].to_owned()], &text[end..]));
    };
    let (mut values, mut value, mut depth) = (Vec::new(), String::new(), 1);
    let mut after_comma = false;
    for (at, c) in list.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ')' if depth == 0 => {
                values.push(value);
                return Ok((values, &list[at + 1..]));
            }
            ',' if depth == 1 => values.push(std::mem::take(&mut value)),
            ' ' if after_comma => continue,
            c => value.push(c),
        }
        after_comma = c == ',' && depth == 1;
    }
    Err(format!("no closing parenthesis in {text}"))
}

#[test]
fn arguments() {
    let (command, args) = parse_head("do  1 k= l=v m=(a, b c,(x,y)) n=(z)").unwrap();
    let arg =
        |key: &str, values: &[&str]| Arg { key: key.into(), values: values.iter().map(|v| (*v).into()).collect() };
    let wanted = [arg("1", &[]), arg("k", &[""]), arg("l", &["v"]), arg("m", &["a", "b c", "(x,y)"]), arg("n", &["z"])];
    assert_eq!((command.as_str(), args.as_slice()), ("do", wanted.as_slice()));
    assert!(parse_head("do k=(a").is_err());
}

#[test]
fn files() {
    let text = "# c\nsubtest s\na 1 \\\n 2\nin\n\nput\n----\nout\n\nb\n----\n----\none\n\ntwo\n----\n----\n\nsubtest end\nc\n----\n";
    let parsed = parse(text).unwrap();
    let seen: Vec<_> = parsed.iter().map(|d| (d.line, d.args.len(), d.input.as_str(), d.expected.as_str())).collect();
    assert_eq!(seen, [(3, 2, "in\n\nput", "out\n"), (11, 0, "", "one\n\ntwo\n"), (21, 0, "", "")]);
    assert!(parse("a\nb\n").is_err());
}
