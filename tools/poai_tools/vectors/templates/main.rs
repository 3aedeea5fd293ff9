//! A PoAI client for the conformance vectors: JSON requests on standard input, answers on standard output.
//!
//! Add a function: write it, and enter it in `find` as "suite/function". Everything that is not there is answered with
//! client/not-implemented, which counts as a gap and not as a failure. Only Rust's standard library is used; `json.rs`
//! is small, and `serde_json` may take its place.

mod json;

use json::Value;
use std::io::{self, BufRead, Write};

/// Why there is no output: the code of an input that the specification rejects, such as difficulty/target, or one of
/// the protocol's own.
struct Rejection(&'static str);

const BAD_REQUEST: Rejection = Rejection("client/bad-request");

type Function = fn(&Value) -> Result<Value, Rejection>;

/// Each x / 2^n, rounded to nearest, halves up; for n <= 0 the exact left shift.
fn round_shift(input: &Value) -> Result<Value, Rejection> {
    let n: i128 = input.get("n").and_then(Value::integer).ok_or(BAD_REQUEST)?;
    let mut y = Vec::new();
    for item in input.get("x").and_then(Value::list).ok_or(BAD_REQUEST)? {
        let x: i128 = item.text().and_then(|text| text.parse().ok()).ok_or(BAD_REQUEST)?;
        let value = if n > 0 { (x + (1 << (n - 1))) >> n } else { x << -n }; // 64 bits and a shift by 62 fit
        y.push(Value::Text(value.to_string()));
    }
    Ok(Value::Object(vec![("y".to_string(), Value::List(y))]))
}

fn find(name: &str) -> Option<Function> {
    match name {
        "fixed_point/round_shift" => Some(round_shift),
        _ => None,
    }
}

/// Output or code of a function on an input.
fn run(request: &Value) -> Result<Value, Rejection> {
    let suite = request.get("suite").and_then(Value::text).ok_or(BAD_REQUEST)?;
    let function = request.get("function").and_then(Value::text).ok_or(BAD_REQUEST)?;
    let input = request.get("input").ok_or(BAD_REQUEST)?;
    match find(&format!("{suite}/{function}")) {
        Some(function) => function(input),
        None => Err(Rejection("client/not-implemented")),
    }
}

fn answer_line(line: &str) -> Value {
    let request = json::parse(line).unwrap_or(Value::Null);
    let id = match request.get("id") {
        Some(Value::Text(id)) => Value::Text(id.clone()),
        _ => Value::Null,
    };
    let result = if id == Value::Null { Err(BAD_REQUEST) } else { run(&request) };
    let rest = match result {
        Ok(output) => ("output".to_string(), output),
        Err(Rejection(code)) => ("code".to_string(), Value::Text(code.to_string())),
    };
    Value::Object(vec![("id".to_string(), id), rest])
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        writeln!(out, "{}", answer_line(&line?))?;
        out.flush()?;
    }
    Ok(())
}
