//! `pipe run --json`: what happens in a run, one JSON object a line, for programs. Fields are added, never renamed.

use crate::event::{Event, StageReport, Totals};
use pipe_cache::Timestamp;
use pipe_stages::context::StageEvent;
use serde_json::{Value, json};
use std::time::Duration;

/// The object of an event. Each has `time` (UTC) and `event`; times that something takes are in seconds.
///
/// - `started`: `pipeline`, `run`, `stages`
/// - `cached`: `stage`; those that a run need not look at are only counted, in `stages` and `ended`
/// - `would-run`: `stage`, `reasons`
/// - `may-run`: `stage`, `because`
/// - `running`: `stage`, `threads`, `reasons`, `expected`
/// - `progress`: `stage`, `done`, `total`, `unit`, `text`
/// - `note`, `warning`: `stage` (null: the run), `text`
/// - `peak-memory`: `stage`, `bytes`
/// - `done`: `stage`, `elapsed`, `items_made`, `items_reused`, `facts`, `unchanged`
/// - `retrying`: `stage`, `error`, `elapsed`, `failed`, `tries`, `wait`
/// - `failed`: `stage`, `error`, `elapsed`, `log`
/// - `interrupted`: `stage`, `elapsed`
/// - `skipped`: `stage`, `because`
/// - `outlook`: `left`
/// - `ended`: `ran`, `cached`, `failed`, `skipped`, `stopped`, `interrupted`
pub(super) fn object(event: &Event, time: Timestamp) -> Option<String> {
    let (name, mut fields) = fields(event)?;
    fields["time"] = json!(time.to_string());
    fields["event"] = json!(name);
    Some(fields.to_string())
}

fn fields(event: &Event) -> Option<(&'static str, Value)> {
    let seconds = |time: &Duration| time.as_secs_f64();
    Some(match event {
        Event::Tick => return None,
        Event::Started { pipeline, run, stages } => {
            let run = run.as_ref().map(ToString::to_string);
            ("started", json!({ "pipeline": pipeline, "run": run, "stages": stages }))
        }
        Event::Cached { stage } => ("cached", json!({ "stage": stage })),
        Event::WouldRun { stage, reasons } => ("would-run", json!({ "stage": stage, "reasons": reasons })),
        Event::MightRun { stage, because } => ("may-run", json!({ "stage": stage, "because": because })),
        Event::Running { stage, threads, reasons, expected } => {
            let expected = expected.as_ref().map(seconds);
            let value =
                json!({ "stage": stage, "threads": threads, "reasons": reasons, "expected": expected });
            ("running", value)
        }
        Event::Stage { stage, event } => match event {
            StageEvent::Progress { done, total, unit, text } => {
                let value =
                    json!({ "stage": stage, "done": done, "total": total, "unit": unit, "text": text });
                ("progress", value)
            }
            StageEvent::Note(text) => ("note", json!({ "stage": stage, "text": text })),
            StageEvent::Warning(text) => ("warning", json!({ "stage": stage, "text": text })),
            StageEvent::PeakMemory { bytes } => ("peak-memory", json!({ "stage": stage, "bytes": bytes })),
        },
        Event::Done { stage, report } => {
            let StageReport { elapsed, items_made, items_reused, facts, unchanged } = report;
            let value = json!({ "stage": stage, "elapsed": seconds(elapsed), "items_made": items_made,
                "items_reused": items_reused, "facts": facts, "unchanged": unchanged });
            ("done", value)
        }
        Event::Retrying { stage, error, elapsed, failed, tries, wait } => {
            let value = json!({ "stage": stage, "error": error, "elapsed": seconds(elapsed), "failed": failed,
                "tries": tries, "wait": seconds(wait) });
            ("retrying", value)
        }
        Event::Failed { stage, error, elapsed, log } => {
            let value = json!({ "stage": stage, "error": error, "elapsed": seconds(elapsed), "log": log });
            ("failed", value)
        }
        Event::Interrupted { stage, elapsed } => {
            ("interrupted", json!({ "stage": stage, "elapsed": seconds(elapsed) }))
        }
        Event::Skipped { stage, because } => ("skipped", json!({ "stage": stage, "because": because })),
        Event::Outlook { left } => ("outlook", json!({ "left": seconds(left) })),
        Event::Warning(text) => ("warning", json!({ "stage": null, "text": text })),
        Event::Ended(Totals { ran, cached, failed, skipped, stopped, interrupted }) => {
            let value = json!({ "ran": ran, "cached": cached, "failed": failed, "skipped": skipped,
                "stopped": stopped, "interrupted": interrupted });
            ("ended", value)
        }
    })
}
