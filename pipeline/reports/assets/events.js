"use strict";

// The rule of find_events in pipeline/scoring/events.py, on runs of frames with equal scores.

// A peak rests on the parts of the model without which it falls most.
const MIN_FALL = 0.1; // of the peak; what falls less is owed to no single part
const MIN_FRACTION_OF_LARGEST = 0.5; // of the largest fall

// Decode the arrays that pipeline/reports/curve.py stores.
function decodeCurve(json) {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const without = Object.entries(json.without).map(([name, text]) => [
    name,
    new Float32Array(bytes(text)),
  ]);
  return {
    frames: new Uint32Array(bytes(json.frames)),
    starts: new Float64Array(bytes(json.starts)),
    lasts: new Float64Array(bytes(json.lasts)),
    scores: new Float32Array(bytes(json.scores)),
    nFrames: json.nFrames,
    endSeconds: json.endSeconds,
    isReduced: json.isReduced,
    without: Object.fromEntries(without),
  };
}

// The events of a curve, in the order of time. The scores are float32, and so are the limits that
// they are compared with, as in Python.
function findEvents(curve, rule) {
  const threshold = Math.fround(rule.threshold);
  const release = Math.fround(rule.releaseFraction * rule.threshold);
  const { starts, lasts, scores } = curve;
  const n = scores.length;
  const spans = []; // [first run, run after the last one]
  let begin = -1;
  for (let i = 0; i <= n; i++) {
    const score = i < n ? scores[i] : -1;
    if (begin < 0 && score >= threshold) {
      begin = i;
    } else if (begin >= 0 && score < release) {
      const previous = spans[spans.length - 1];
      if (previous && starts[begin] - lasts[previous[1] - 1] <= rule.mergeSeconds) {
        begin = spans.pop()[0];
      }
      spans.push([begin, i]);
      begin = -1;
    }
  }
  return spans
    .map(([start, stop]) => describeEvent(curve, start, stop))
    .filter((event) => event.stopSeconds - event.startSeconds >= rule.minSeconds);
}

// The fields of Event in pipeline/scoring/events.py, for runs `start` to `stop` - 1.
function describeEvent(curve, start, stop) {
  const isLast = stop === curve.scores.length;
  const stopFrame = isLast ? curve.nFrames : curve.frames[stop];
  let peakRun = start;
  let total = 0;
  for (let i = start; i < stop; i++) {
    if (curve.scores[i] > curve.scores[peakRun]) peakRun = i;
    const next = i + 1 < curve.frames.length ? curve.frames[i + 1] : curve.nFrames;
    total += curve.scores[i] * (next - curve.frames[i]);
  }
  return {
    startFrame: curve.frames[start],
    stopFrame,
    startSeconds: curve.starts[start],
    stopSeconds: isLast ? curve.endSeconds : curve.starts[stop],
    peak: curve.scores[peakRun],
    peakFrame: curve.frames[peakRun],
    mean: total / (stopFrame - curve.frames[start]),
    // By part of the model: what the peak's score would be without it.
    without: Object.fromEntries(
      Object.entries(curve.without).map(([name, scores]) => [name, scores[peakRun]]),
    ),
  };
}

// What an event's peak rests on, in words; "" for a model without parts.
function describeParts({ peak, without }) {
  const falls = Object.entries(without).map(([name, score]) => [name, peak - score]);
  if (!falls.length) return "";
  const largest = Math.max(...falls.map(([, fall]) => fall));
  if (largest < MIN_FALL * peak) return "rests on no part alone";
  const parts = falls.filter(([, fall]) => fall >= MIN_FRACTION_OF_LARGEST * largest);
  return `rests on ${parts.map(([name]) => name).join(" and ")}`;
}
