// The link to the gateway: one event stream, and the judgement whether what is shown may still be believed.
//
// Only the server's ticks keep the board alive, measured on this device's monotonic clock. Three seconds without one:
// delayed. Five: disconnected, everything on the page is history. After a disconnection the board is fetched whole
// before it is called live again. A tick that jumps ahead of the monotonic clock means that this device slept.
import { computed, signal } from "./vendor/ui.js";
import { agents, applyBoard, applyMessages, session } from "./model.js";
import { setTimeZone } from "./words.js";

const DELAYED_MS = 3000;
const DISCONNECTED_MS = 5000;
const WATCH_MS = 250;
const RETRY_MS = 2000;
const SLEPT_MS = 5000;
const SKEW_MS = 5000;
const EVENTS = ["guard", "machine", "violation", "alarm", "agent"];

export const link = signal("loading"); // loading · live · delayed · disconnected · resync
export const asOf = signal(0); // server time of the last tick, ms
export const silentMs = signal(0); // since the last tick
export const skewMs = signal(0);
export const isLive = computed(() => link.value === "live" || link.value === "delayed");

let source = null;
let tickAt = performance.now();
let waiting = [];
let isPainting = false;
let round = 0; // a newer resync makes an older one's answers void

export async function start() {
  setInterval(watch, WATCH_MS);
  addEventListener("pageshow", (event) => event.persisted && resync());
  document.addEventListener("visibilitychange", () => document.hidden || watch());
  await resync();
}

async function getJson(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (response.status === 401) {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function allAlarms() {
  const items = [];
  let cursor = "";
  do {
    const page = await getJson(`/api/v1/alarms?letter=B,C,D,E,F,G,H,I&limit=1000${cursor}`);
    items.push(...page.items);
    cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : "";
  } while (cursor);
  return items;
}

export async function resync() {
  const mine = ++round;
  close();
  if (link.value === "live" || link.value === "delayed") link.value = "resync";
  try {
    session.value = await getJson("/api/v1/session");
    setTimeZone(session.value.time_zone);
    const [board, alarmItems, agentPage] = await Promise.all([
      getJson("/api/v1/board"), allAlarms(), getJson("/api/v1/agents"),
    ]);
    if (mine !== round) return;
    applyBoard(board, alarmItems, agentPage.items);
    tick(board.as_of);
    open(board.position, mine);
  } catch (error) {
    if (mine === round) setTimeout(() => mine === round && resync(), RETRY_MS);
  }
}

function close() {
  if (source) source.close();
  source = null;
  waiting = [];
}

function open(position, mine) {
  source = new EventSource(`/api/v1/live?position=${position}`);
  source.addEventListener("tick", (event) => onTick(JSON.parse(event.data).as_of));
  source.addEventListener("reset", () => resync());
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => take(name, JSON.parse(event.data)));
  }
  source.addEventListener("error", () => {
    // closed for good: refused or signed out; a broken connection the browser mends itself
    if (source && source.readyState === EventSource.CLOSED) setTimeout(() => mine === round && resync(), RETRY_MS);
  });
}

function onTick(text) {
  const isGap = link.value === "disconnected" || link.value === "resync";
  const server = Date.parse(text);
  const slept = asOf.value > 0 && server - asOf.value - (performance.now() - tickAt) > SLEPT_MS;
  if (isGap || slept) resync();
  else tick(text);
}

function tick(text) {
  asOf.value = Date.parse(text);
  tickAt = performance.now();
  silentMs.value = 0;
  skewMs.value = Math.abs(Date.now() - asOf.value) > SKEW_MS ? Date.now() - asOf.value : 0;
  link.value = "live";
}

function watch() {
  const age = performance.now() - tickAt;
  if (link.value === "loading" && age < DISCONNECTED_MS) return;
  if (age < DELAYED_MS) return;
  silentMs.value = age;
  link.value = age < DISCONNECTED_MS && link.value !== "disconnected" ? "delayed" : "disconnected";
}

// Painted together, once per frame; a hidden page gets no frames and uses a timer.
function take(event, data) {
  waiting.push({ event, data });
  if (isPainting) return;
  isPainting = true;
  if (document.hidden) setTimeout(paint, WATCH_MS);
  else requestAnimationFrame(paint);
}

function paint() {
  isPainting = false;
  const messages = waiting;
  waiting = [];
  const isNewAgent = messages.some(({ event, data }) => event === "agent" && !agents.value.has(`${data.site}/${data.agent}`));
  if (!applyMessages(messages) || isNewAgent) resync();
}
