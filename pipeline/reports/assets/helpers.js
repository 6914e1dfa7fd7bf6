"use strict";

// Text, elements and look-ups of the report pages.

// Seconds as "1:02:03.4".
function clock(seconds, decimals = 1) {
  const sign = seconds < 0 ? "-" : "";
  const scale = 10 ** decimals;
  const rounded = Math.round(Math.abs(seconds) * scale) / scale;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor((rounded % 3600) / 60);
  const rest = (rounded % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
  const head = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : `${minutes}`;
  return `${sign}${head}:${rest}`;
}

const byId = (id) => document.getElementById(id);

const count = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The index of the last value that is at most `wanted`; 0 where none is.
function indexAt(values, wanted) {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= wanted) low = middle;
    else high = middle - 1;
  }
  return low;
}

function thumbnailImage(thumbnail) {
  const made = element("img");
  made.src = thumbnail.src;
  made.alt = "";
  return made;
}

// The one of several items with the smallest distance; null where there are none.
function nearest(items, distance) {
  let best = null;
  for (const item of items) {
    if (best === null || distance(item) < distance(best)) best = item;
  }
  return best;
}
