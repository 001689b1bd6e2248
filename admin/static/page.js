// Keeps the page as the frames of /events say. All that came from a client goes into
// text nodes; nothing is parsed as HTML.
"use strict";

const kept = 600; // seconds of history
let points = [];

const number = (n) => n < 10 && n !== Math.trunc(n) ? n.toFixed(1) : Math.round(n).toLocaleString("en-US");
const byId = (id) => document.getElementById(id);
const each = (selector, f) => document.querySelectorAll(selector).forEach(f);

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + "s";
  if (s < 3600) return Math.trunc(s / 60) + "m " + s % 60 + "s";
  if (s < 86400) return Math.trunc(s / 3600) + "h " + Math.trunc(s % 3600 / 60) + "m";
  return Math.trunc(s / 86400) + "d " + Math.trunc(s % 86400 / 3600) + "h";
}

function element(tag, content, className) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (content !== undefined) e.textContent = content;
  if (tag === "th") e.scope = "row";
  return e;
}

function fill(id, items, make) {
  byId(id).replaceChildren(...(items || []).map(make));
}

function draw(name, of) {
  let most = 1;
  for (const p of points) most = Math.max(most, of(p));
  const line = points.map((p, i) => (kept - points.length + i + 1) + "," + (100 * (1 - of(p) / most)).toFixed(1));
  byId("line-" + name).setAttribute("points", line.join(" "));
  text(byId("most-" + name), number(most));
}

function listener(l) {
  const row = element("tr", undefined, l.closed ? "closed" : "");
  row.append(element("th", l.address), element("td", l.protocol + (l.tls ? ", " + l.tls : "") + (l.closed ? " (closed, draining)" : "")));
  for (const n of [l.open, l.accepted, l.upgrades, l.failed, l.refused, l.injected]) row.append(element("td", number(n), "n"));
  row.append(element("td", l.backend, "last"));
  return row;
}

function refusal(now) {
  return (r) => {
    const row = element("tr", undefined, r.reason === "injected" ? "alarm" : "");
    row.append(element("th", r.client), element("td", r.reason), element("td", number(r.count), "n"),
      element("td", span((now - Date.parse(r.last)) / 1000) + " ago", "n"), element("td", r.listener, "last"));
    return row;
  };
}

function certificate(now) {
  return (c) => {
    const days = Math.trunc((Date.parse(c.not_after) - now) / 86400000);
    const item = element("li", undefined, c.stale || days < 14 ? "alarm" : "");
    item.append(element("strong", (c.names || []).join(", ")), element("span", c.file || "self-signed, made at the start"),
      element("span", "until " + c.not_after.slice(0, 16).replace("T", " ") + " UTC, " + days + " days left"));
    if (c.stale) item.append(element("span", "the new file cannot be used: " + c.stale, "problem"));
    return item;
  };
}

function limit(l) {
  const percent = l.most ? Math.trunc(100 * l.used / l.most) : 0;
  const item = element("li", undefined, percent > 80 ? "alarm" : "");
  item.append(element("span", l.name, "name"), " ",
    element("span", l.most ? number(l.used) + " of " + number(l.most) : l.value, "value"));
  if (l.most) {
    const meter = element("meter");
    Object.assign(meter, { min: 0, max: 100, low: 60, high: 80, optimum: 0, value: percent, ariaLabel: l.name });
    item.append(meter);
  }
  return item;
}

function show(frame) {
  const s = frame.status, now = Date.parse(s.time);
  points = frame.history ? frame.history : points.concat(frame.rates).slice(-kept);
  each("[data-n]", (e) => text(e, number(s[e.dataset.n])));
  each("[data-r]", (e) => text(e, number(frame.rates[e.dataset.r])));
  const words = { version: s.version, pid: String(s.pid), uptime: span((now - Date.parse(s.started)) / 1000) };
  each("[data-v]", (e) => text(e, words[e.dataset.v]));
  text(byId("state"), s.state);
  byId("state").className = "badge " + s.state;
  byId("stress").hidden = !s.stress;
  byId("injected").className = s.injected ? "alarm" : "";
  draw("upgrades", (p) => p.upgrades);
  draw("open", (p) => p.open);
  const refusals = s.refusals || [];
  byId("no-refusals").hidden = refusals.length > 0;
  byId("some-refusals").hidden = refusals.length === 0;
  fill("listeners", s.listeners, listener);
  fill("refusals", refusals, refusal(now));
  fill("certificates", s.certificates, certificate(now));
  fill("limits", s.limits, limit);
}

function alive(live) {
  byId("live").className = live ? "live" : "live lost";
  text(byId("live"), live ? "live" : "connection lost, trying again");
}

// The browser tries again by itself, but not after an answer that is no stream.
function listen() {
  const events = new EventSource("/events");
  events.onmessage = (e) => {
    alive(true);
    show(JSON.parse(e.data));
  };
  events.onerror = () => {
    alive(false);
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}
listen();
