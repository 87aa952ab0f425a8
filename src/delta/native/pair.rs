//! An old file and a new one: the steps from the one to the other, in parts that each fit into an operation, with the prediction of
//! references that makes each part cheapest.

use super::column::OPERATION_BYTES;
use super::matches::{self, Step, Weights};
use super::references::{self, ALL, CHUNK_BYTES, CODE, JUMPS, Layout, Moves, POINTERS, Prediction};
use super::suffixes::suffixes;
use super::{MAX_PREDICTED_STEPS, flag};

/// Where a file begins with so many bytes and no zero, it is text.
const TEXT_BYTES: usize = 1024;

/// The steps that make the part of a new file from `start` on, in one operation.
pub struct Part {
    pub steps: Vec<Step>,
    pub start: usize,
    pub prediction: Option<Prediction>,
}

impl Part {
    /// What an operation says of it.
    pub fn flags(&self) -> u8 {
        if self.prediction.is_some() { flag::PREDICTED } else { 0 }
    }
}

/// How long the part of the new file is that steps make.
pub fn bytes_of(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.copy + step.extra).sum()
}

/// An old file, and the new one that is to be made of it.
pub struct Pair<'a> {
    pub old: &'a [u8],
    pub new: &'a [u8],
    pub layouts: Option<(Layout, Layout)>,
    pub steps: Vec<Step>,
}

impl<'a> Pair<'a> {
    /// Finds the steps.
    pub fn of(old: &'a [u8], new: &'a [u8]) -> Pair<'a> {
        let layout = |file: &[u8]| {
            Layout::parse(&mut |offset, buffer| {
                let bytes = usize::try_from(offset)
                    .ok()
                    .and_then(|start| file.get(start..)?.get(..buffer.len()));
                bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
            })
        };
        let layouts = layout(old).zip(layout(new)).filter(|(old, new)| old.is_like(new));
        let is_text = |file: &[u8]| !file[..file.len().min(TEXT_BYTES)].contains(&0);
        let weights = if is_text(old) && is_text(new) { Weights::TEXT } else { Weights::BINARY };
        let steps = match &layouts {
            Some((old_layout, new_layout)) => {
                let (old, new) =
                    (references::mask(old_layout, old), references::mask(new_layout, new));
                matches::steps(&old, &new, &suffixes(&old), weights)
            }
            None => matches::steps(old, new, &suffixes(old), weights),
        };
        Pair { old, new, layouts, steps }
    }

    /// The steps, in parts that fit into an operation each.
    pub fn parts(&self) -> Vec<Part> {
        let steps: Vec<Step> = self.steps.iter().flat_map(|&step| split(step)).collect();
        let mut parts = Vec::new();
        let mut start = 0;
        for steps in steps.chunks(MAX_PREDICTED_STEPS) {
            self.fit(steps, start, &mut parts);
            start += bytes_of(steps);
        }
        if parts.is_empty() {
            parts.push(Part { steps, start, prediction: None });
        }
        parts
    }

    /// Adds `steps` to `parts`: as one, or as halves, and those again, where that is too much.
    fn fit(&self, steps: &[Step], start: usize, parts: &mut Vec<Part>) {
        let (cost, prediction) = self.prediction(steps, start);
        if cost <= OPERATION_BYTES || steps.len() == 1 {
            return parts.push(Part { steps: steps.to_vec(), start, prediction });
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        self.fit(first, start, parts);
        self.fit(second, start + bytes_of(first), parts);
    }

    /// The cheapest prediction for steps that make the new file from `start` on, and how many bytes they then take at most.
    fn prediction(&self, steps: &[Step], start: usize) -> (usize, Option<Prediction>) {
        let (cost, layouts) = (self.cost(steps, start, None), self.layouts.as_ref());
        let Some((old, new)) = layouts else { return (cost, None) };
        let moves = || {
            let mut at = start as u64;
            let copies = steps.iter().map(|step| {
                let copy = (step.from as u64, step.copy as u64, at);
                at += (step.copy + step.extra) as u64;
                copy
            });
            Moves::new(copies.collect())
        };
        let choices = [CODE, ALL & !POINTERS & !JUMPS, ALL & !POINTERS, ALL & !JUMPS, ALL];
        let candidates = choices.into_iter().map(|kinds| {
            let (old, new) = (old.clone(), new.clone());
            let prediction = Prediction { kinds, old, new, moves: moves() };
            (self.cost(steps, start, Some(&prediction)), Some(prediction))
        });
        let all = std::iter::once((cost, None)).chain(candidates);
        // Cannot fail: there is one.
        all.min_by_key(|(cost, _)| *cost).unwrap()
    }

    /// What the steps take at most, in bytes: numbers, differences and new bytes.
    fn cost(&self, steps: &[Step], start: usize, prediction: Option<&Prediction>) -> usize {
        const NUMBERS_OF_STEP: usize = 16;
        let (mut cost, mut differed) = (steps.len() * NUMBERS_OF_STEP, false);
        self.walk(steps, start, prediction, &mut |copied, wanted, extra| {
            for (one, other) in copied.iter().zip(wanted) {
                let differs = one != other;
                // A gap and a run before the first value of a run, a byte each; longer numbers are for more bytes than 64.
                cost += usize::from(differs) + if differs && !differed { 2 } else { 0 };
                differed = differs;
            }
            cost += copied.len() / 64 + extra.len();
        });
        cost
    }

    /// Goes through the steps as the reader of the delta does: for each chunk what was copied, what is wanted, and the new bytes
    /// behind it.
    pub fn walk(
        &self,
        steps: &[Step],
        start: usize,
        prediction: Option<&Prediction>,
        each: &mut Each,
    ) {
        let mut at = start;
        for step in steps {
            for chunk in (0..step.copy).step_by(CHUNK_BYTES) {
                let bytes = CHUNK_BYTES.min(step.copy - chunk);
                let mut copied = self.old[step.from + chunk..][..bytes].to_vec();
                if let Some(prediction) = prediction {
                    prediction.predict(
                        &mut copied,
                        (step.from + chunk) as u64,
                        (at + chunk) as u64,
                    );
                }
                each(&copied, &self.new[at + chunk..][..bytes], &[]);
            }
            at += step.copy;
            each(&[], &[], &self.new[at..][..step.extra]);
            at += step.extra;
        }
    }
}

/// What is done with each chunk of a patch: what was copied, what is wanted, and the new bytes behind it.
pub type Each<'a> = dyn FnMut(&[u8], &[u8], &[u8]) + 'a;

/// A step, in parts none of which is too much for an operation.
fn split(step: Step) -> Vec<Step> {
    const PART: usize = OPERATION_BYTES / 8;
    let (mut parts, mut step) = (Vec::new(), step);
    while step.copy > 2 * PART {
        parts.push(Step { copy: PART, extra: 0, ..step });
        step = Step { from: step.from + PART, copy: step.copy - PART, ..step };
    }
    while step.extra > PART {
        parts.push(Step { extra: PART, ..step });
        step = Step { from: step.from + step.copy, copy: 0, extra: step.extra - PART };
    }
    parts.push(step);
    parts
}
