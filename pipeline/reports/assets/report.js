"use strict";

// The page of one video: player, curve, events. Times are seconds of the video's timestamps.
(() => {
  const MAX_LISTED = 200;
  const data = JSON.parse(byId("report-data").textContent);
  const curve = decodeCurve(data.curve);
  const thumbnails = data.thumbnails;
  const first = curve.starts[0];
  // The duration of a single frame is not known.
  const last = Math.max(curve.endSeconds, first + 0.04);
  const rule = { ...data.rule };
  const plot = byId("plot");

  let now = first;
  let events = [];
  let chart = null;
  let player = null;

  // ---- look-ups

  const scoreAt = (seconds) => curve.scores[indexAt(curve.starts, seconds)];

  const thumbnailAt = (seconds) => nearest(thumbnails, (t) => Math.abs(t.seconds - seconds));

  function thumbnailOf(event) {
    const inside = thumbnails.filter(
      (t) => t.frame >= event.startFrame && t.frame < event.stopFrame,
    );
    return nearest(inside, (t) => Math.abs(t.frame - event.peakFrame));
  }

  // ---- the present time

  function seek(seconds) {
    const target = Math.min(Math.max(seconds, first), last);
    player.seek(target);
    showTime(target);
  }

  function showTime(seconds) {
    now = seconds;
    const score = scoreAt(seconds);
    byId("now").textContent = `${clock(seconds)} / ${clock(last)}`;
    byId("now-score").textContent = score.toFixed(3);
    byId("now-score").classList.toggle("alarm", eventAt(seconds) >= 0);
    plot.setAttribute("aria-valuenow", seconds.toFixed(2));
    plot.setAttribute("aria-valuetext", `${clock(seconds)}, score ${score.toFixed(2)}`);
    player.showStill(seconds);
    markEvent(eventAt(seconds));
    movePlayhead();
  }

  const eventAt = (seconds) =>
    events.findIndex((e) => e.startSeconds <= seconds && seconds < e.stopSeconds);

  function markEvent(index) {
    for (const item of byId("event-list").children) {
      if (item.dataset.index === String(index)) item.setAttribute("aria-current", "true");
      else item.removeAttribute("aria-current");
    }
  }

  // ---- the curve

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function drawBands(u) {
    const { left, top, width, height } = u.bbox;
    const fill = (from, to, style, y, bandHeight) => {
      const begin = Math.max(u.valToPos(from, "x", true), left);
      const end = Math.min(u.valToPos(to, "x", true), left + width);
      if (end < left || begin > left + width) return;
      u.ctx.fillStyle = style;
      u.ctx.fillRect(begin, y, Math.max(end - begin, 1), bandHeight);
    };
    u.ctx.save();
    for (const [from, to] of data.truth) fill(from, to, color("--truth"), top, height * 0.05);
    for (const e of events) fill(e.startSeconds, e.stopSeconds, color("--band"), top, height);
    u.ctx.restore();
  }

  function drawThreshold(u) {
    const { left, width } = u.bbox;
    const y = u.valToPos(rule.threshold, "y", true);
    u.ctx.save();
    u.ctx.strokeStyle = color("--alarm");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(left, y);
    u.ctx.lineTo(left + width, y);
    u.ctx.stroke();
    u.ctx.restore();
  }

  const playhead = element("div", "playhead");
  const tip = element("div", "tip");

  function movePlayhead() {
    if (!chart) return;
    const x = chart.valToPos(now, "x");
    playhead.hidden = x < -1 || x > chart.over.clientWidth + 1;
    playhead.style.transform = `translateX(${x}px)`;
  }

  function showTip(u) {
    const { left } = u.cursor;
    tip.hidden = left === null || left === undefined || left < 0;
    if (tip.hidden) return;
    const seconds = u.posToVal(left, "x");
    const thumbnail = thumbnailAt(seconds);
    tip.replaceChildren();
    if (thumbnail) tip.append(thumbnailImage(thumbnail));
    tip.append(element("span", "", `${clock(seconds)} · score ${scoreAt(seconds).toFixed(3)}`));
    const half = tip.offsetWidth / 2;
    const x = Math.min(Math.max(left, half), Math.max(u.over.clientWidth - half, half));
    tip.style.transform = `translateX(${x - half}px)`;
  }

  function showRange(u) {
    const { min, max } = u.scales.x;
    byId("zoom-all").disabled = min <= first && max >= last;
    movePlayhead();
    showStrip(min, max);
  }

  function showStrip(min, max) {
    const strip = byId("strip");
    const left = chart ? chart.bbox.left / devicePixelRatio : 0;
    const width = chart ? chart.bbox.width / devicePixelRatio : strip.clientWidth;
    strip.style.marginLeft = `${left}px`;
    strip.style.width = `${width}px`;
    const n = Math.max(3, Math.floor(width / 104));
    strip.replaceChildren();
    if (!thumbnails.length) return;
    for (let i = 0; i < n; i++) {
      const thumbnail = thumbnailAt(min + ((i + 0.5) / n) * (max - min));
      const made = thumbnailImage(thumbnail);
      made.title = clock(thumbnail.seconds);
      made.addEventListener("click", () => seek(thumbnail.seconds));
      strip.append(made);
    }
  }

  function zoom(factor) {
    const { min, max } = chart.scales.x;
    const span = Math.min((max - min) * factor, last - first);
    const center = now >= min && now <= max ? now : (min + max) / 2;
    const begin = Math.min(Math.max(center - span / 2, first), last - span);
    chart.setScale("x", { min: begin, max: begin + span });
  }

  function makeChart() {
    const axis = {
      stroke: () => color("--muted"),
      grid: { stroke: () => color("--grid"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30];
    for (const unit of [60, 3600]) for (const n of [1, 2, 5, 10, 15, 30]) steps.push(n * unit);
    const options = {
      ...plotSize(),
      legend: { show: false },
      scales: { x: { time: false }, y: { range: [0, 1] } },
      cursor: { drag: { x: true, y: false, dist: 6 }, y: false, points: { show: false } },
      axes: [
        {
          ...axis,
          incrs: steps,
          size: 26,
          space: 64,
          values: (u, ticks, axisIndex, space, step) =>
            ticks.map((tick) => clock(tick, step < 1 ? 1 : 0)),
        },
        { ...axis, size: 40, space: 36 },
      ],
      series: [
        {},
        {
          stroke: () => color("--curve"),
          fill: () => color("--curve-fill"),
          width: 2,
          points: { show: false },
          paths: uPlot.paths.stepped({ align: 1 }),
        },
      ],
      hooks: {
        drawClear: [drawBands],
        draw: [drawThreshold],
        setCursor: [showTip],
        setScale: [(u, name) => name === "x" && chart && showRange(u)],
        ready: [(u) => u.over.append(playhead, tip)],
      },
    };
    const x = Float64Array.from([...curve.starts, last]);
    const y = Float64Array.from([...curve.scores, curve.scores[curve.scores.length - 1]]);
    chart = new uPlot(options, [x, y], plot);
    tip.hidden = true;
    connectPointer(chart.over);
    new ResizeObserver(resize).observe(plot); // calls it once at the start
  }

  const plotSize = () => ({
    width: Math.max(plot.clientWidth, 160),
    height: Math.max(plot.clientHeight, 120),
  });

  function resize() {
    chart.setSize(plotSize());
    showRange(chart);
  }

  function connectPointer(over) {
    let pressedAt = null;
    const seekTo = (e) => {
      const x = e.clientX - over.getBoundingClientRect().left;
      seek(chart.posToVal(x, "x"));
    };
    over.addEventListener("pointerdown", (e) => {
      pressedAt = e.clientX;
    });
    over.addEventListener("pointermove", (e) => {
      if (e.pointerType === "touch") seekTo(e);
    });
    over.addEventListener("click", (e) => {
      // A drag zooms.
      if (pressedAt === null || Math.abs(e.clientX - pressedAt) < 6) seekTo(e);
    });
    over.addEventListener("mouseleave", () => {
      tip.hidden = true;
    });
  }

  // ---- the events

  function showEvents() {
    events = findEvents(curve, rule);
    byId("threshold-value").textContent = rule.threshold.toFixed(2);
    const total = events.reduce((sum, e) => sum + e.stopSeconds - e.startSeconds, 0);
    byId("event-count").textContent = events.length
      ? `${count(events.length, "event")} · ${clock(total)} in all`
      : "no event";
    const listed = events
      .map((event, index) => ({ event, index }))
      .sort((a, b) => b.event.peak - a.event.peak)
      .slice(0, MAX_LISTED)
      .sort((a, b) => a.index - b.index);
    byId("event-list").replaceChildren(...listed.map(eventItem));
    const isCut = listed.length < events.length;
    byId("event-cut").hidden = !isCut;
    if (isCut) byId("event-cut").textContent = `The ${MAX_LISTED} with the highest peaks are listed.`;
    if (chart) chart.redraw(false);
    showTime(now);
  }

  function eventItem({ event, index }) {
    const item = element("li");
    item.dataset.index = index;
    const button = element("button", "event");
    button.type = "button";
    const thumbnail = thumbnailOf(event);
    button.append(thumbnail ? thumbnailImage(thumbnail) : element("span", "no-image"));
    const text = element("span", "event-text");
    const duration = event.stopSeconds - event.startSeconds;
    text.append(
      element("strong", "", `${clock(event.startSeconds)} – ${clock(event.stopSeconds)}`),
      element("span", "muted", `${duration.toFixed(1)} s · mean ${event.mean.toFixed(2)}`),
    );
    const parts = Object.entries(event.without);
    if (parts.length) {
      const scores = parts.map(([name, score]) => `without ${name} ${score.toFixed(2)}`);
      text.append(element("span", "", describeParts(event)));
      text.append(element("span", "muted", scores.join(" · ")));
    }
    const peak = element("span", "peak", event.peak.toFixed(2));
    peak.title = `peak score, at ${clock(curve.starts[indexAt(curve.frames, event.peakFrame)])}`;
    button.append(text, peak);
    button.addEventListener("click", () => seek(event.startSeconds));
    item.append(button);
    return item;
  }

  function seekEvent(direction) {
    const starts = events.map((e) => e.startSeconds);
    const target =
      direction > 0
        ? starts.find((s) => s > now + 0.001)
        : starts.findLast((s) => s < now - 0.001);
    if (target !== undefined) seek(target);
  }

  // ---- start

  const keys = {
    ArrowRight: (e) => seek(now + (e.shiftKey ? 10 : 1)),
    ArrowLeft: (e) => seek(now - (e.shiftKey ? 10 : 1)),
    Home: () => seek(first),
    End: () => seek(last),
    " ": () => player.toggle(),
    n: () => seekEvent(1),
    p: () => seekEvent(-1),
    "+": () => zoom(0.5),
    "-": () => zoom(2),
    0: () => zoom(Infinity),
  };
  plot.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || !(e.key in keys)) return;
    e.preventDefault();
    keys[e.key](e);
  });
  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", () => zoom(Infinity));
  byId("previous").addEventListener("click", () => seekEvent(-1));
  byId("next").addEventListener("click", () => seekEvent(1));
  byId("threshold").addEventListener("input", (e) => {
    rule.threshold = Number(e.target.value);
    showEvents();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.redraw(false));

  plot.setAttribute("aria-valuemin", first.toFixed(2));
  plot.setAttribute("aria-valuemax", last.toFixed(2));
  byId("threshold").value = rule.threshold;
  // Browsers move a video that begins before 0 to 0.
  player = makePlayer({ offset: Math.min(0, first), thumbnailAt, onTime: showTime });
  makeChart();
  showEvents();
})();
