// Sites, areas, machines and guards in fixed places. A tile reads its own signals, so a change repaints that tile; the
// clock it only peeks at, or every tick would repaint them all.
import { html, useEffect, useRef, useState } from "./vendor/ui.js";
import { Badge, Icon } from "./alarms.js";
import { lookOf, wordOf } from "./display.js";
import { asOf, isLive, link } from "./link.js";
import { guardSignal, machineSignal, sites } from "./model.js";
import { clock, duration, label, moment, t } from "./words.js";

const RING_MS = 3000;
const MOTION = { run: ["run", "machine.running"], stop: ["stop", "machine.stopped"], unknown: ["unknown", "machine.unknown"] };

// What a tile says: the state now, or, when nothing is known now, what was known last and until when.
function textOf(guard, moving) {
  const shown = lookOf(guard, moving);
  if (!isLive.value && link.value !== "loading") {
    if (shown.look !== "unknown") {
      return { ...shown, look: "unknown", icon: "unknown", word: t("tile.last", { word: t(shown.word), time: clock(asOf.value) }), isLong: true };
    }
  }
  if (shown.look !== "unknown") return { ...shown, word: t(shown.word) };
  if (!guard.last) {
    const word = guard.since || guard.quality === "good" ? t("state.unknown") : t("tile.never");
    return { ...shown, word };
  }
  const { state, until } = guard.last;
  const known = t(wordOf(guard.kind, state, undefined, undefined));
  return { ...shown, word: t("tile.last", { word: known, time: until ? moment(until, asOf.peek()) : "?" }), isLong: true };
}

function useRing(mark) {
  const [isChanged, setChanged] = useState(false);
  const before = useRef(mark);
  useEffect(() => {
    if (before.current === mark) return undefined;
    before.current = mark;
    setChanged(true);
    const timer = setTimeout(() => setChanged(false), RING_MS);
    return () => clearTimeout(timer);
  }, [mark]);
  return isChanged;
}

function Guard({ id, machineId, isFirst }) {
  const guard = guardSignal(id).value;
  const machine = machineSignal(machineId).value;
  const text = textOf(guard, machine.moving);
  const isChanged = useRing(`${guard.state} ${guard.priority}`);
  const alarmText = guard.alarms > 0 && t("tile.alarms", { count: guard.alarms, priority: guard.priority });
  const name = label(guard.labels, guard.guard);
  const since = guard.since ? t("tile.since", { time: moment(guard.since, asOf.peek()) }) : "";
  return html`<li class=${`guard v-${text.look}${isChanged ? " is-changed" : ""}`} data-guard=${id} data-look=${text.look}
      tabindex=${isFirst ? 0 : -1} title=${[name, text.word, since, alarmText].filter(Boolean).join(" — ")}>
    <${Icon} name=${text.icon} /><span class="name">${name}</span>
    ${guard.priority && html`<${Badge} priority=${guard.priority} />`}
    ${alarmText && html`<span class="said">${alarmText}</span>`}
    <span class=${text.isLong ? "word is-long" : "word"}>${text.word}</span>
  </li>`;
}

// Arrow keys move within one machine's guards; Tab goes on to the next machine.
function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const tile = event.target.closest(".guard");
  if (!step || !tile) return;
  const next = step > 0 ? tile.nextElementSibling : tile.previousElementSibling;
  if (!next) return;
  event.preventDefault();
  tile.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function Motion({ machine }) {
  const moving = isLive.value || link.value === "loading" ? machine.moving : null;
  const motion = moving === true ? "run" : moving === false ? "stop" : "unknown";
  const [icon, word] = MOTION[motion];
  const mode = machine.mode && motion !== "unknown" ? machine.mode : null;
  const modeText = mode && (["auto", "setup", "maint", "local"].includes(mode) ? t(`mode.${mode}`) : mode);
  return html`<span class=${`motion motion-${motion}`}><${Icon} name=${icon} />${t(word)}${modeText && html` <span>${modeText}</span>`}</span>`;
}

// Alone in reading the clock, so that a tick does not repaint a machine.
function Lost({ until }) {
  return html`<p class="lost">${t("machine.no_data", { duration: duration(asOf.value - Date.parse(until)) })}</p>`;
}

function Machine({ id, guards }) {
  const [isShown, setShown] = useState(false);
  const machine = machineSignal(id).value;
  const states = guards.map((key) => guardSignal(key).value);
  const isBlind = states.length > 0 && states.every((guard) => guard.state === "unknown");
  const quiet = states.filter((guard) => lookOf(guard, machine.moving).look === "closed").length;
  const lost = isBlind && states[0].last && states[0].last.until;
  return html`<article class=${`machine${isBlind ? " is-blind" : ""}${isShown ? " is-shown" : ""}`} data-machine=${id}>
    <header>
      <h4>${label(machine.labels, machine.machine)}</h4>
      ${machine.priority && html`<${Badge} priority=${machine.priority} />`}
      <${Motion} machine=${machine} />
    </header>
    ${lost && isLive.value && html`<${Lost} until=${lost} />`}
    <button class="summary" aria-expanded=${isShown} onClick=${() => setShown(!isShown)}>
      <span>${t("machine.summary", { quiet: isLive.value ? quiet : 0, abnormal: states.length - (isLive.value ? quiet : 0) })}</span><span aria-hidden="true">${isShown ? "▴" : "▾"}</span>
    </button>
    <ul class="guards" onKeyDown=${moveFocus}>
      ${guards.map((key, index) => html`<${Guard} key=${key} id=${key} machineId=${id} isFirst=${index === 0} />`)}
    </ul>
  </article>`;
}

export function Sites() {
  return sites.value.map((site) => html`<section class="site" key=${site.site} aria-label=${label(site.labels, site.site)}>
    <h2>${label(site.labels, site.site)}</h2>
    <div class="areas">${site.areas.map((area) => html`<section class="area" key=${area.area}>
      <h3>${label(area.labels, area.area || t("area.none"))}</h3>
      <div class="machines">
        ${area.machines.map((machine) => html`<${Machine} key=${machine.key} id=${machine.key} guards=${machine.guards} />`)}
      </div>
    </section>`)}</div>
  </section>`);
}

export function Empty() {
  return html`<section class="empty">
    <h2>${t("empty.head")}</h2>
    <p>${t("empty.why")}</p>
    <ol>${[1, 2, 3].map((step) => html`<li key=${step}>${t(`empty.step${step}`)}</li>`)}</ol>
  </section>`;
}
