// What nobody has seen yet, on top of the board: at most five rows, the gravest first, each acknowledged by itself.
import { html, signal, useEffect, useRef } from "./vendor/ui.js";
import { asOf, isLive, link } from "./link.js";
import { agents, alarms, blindAgents, counts, guardSignal, machineSignal, session, sites, unseen } from "./model.js";
import { clock, duration, label, moment, ruleName, t } from "./words.js";

const ROWS_MAX = 5;
const ANNOUNCE_MS = 5000;
const OUTCOME_MS = 8000;
const ROLES = ["viewer", "maintenance", "shift_manager", "safety_officer", "admin"];

const outcomes = signal(new Map()); // alarm id → what became of pressing the button

export const Icon = ({ name }) => html`<span class=${`icon icon-${name}`} aria-hidden="true"></span>`;

export const Badge = ({ priority, calling }) =>
  html`<span class=${`badge badge-${priority}${calling ? " is-calling" : ""}`} role="img" aria-label=${priority}>${priority[1]}</span>`;

export function placeOf(alarm) {
  const machine = alarm.machine && machineSignal(`${alarm.site}/${alarm.machine}`);
  const guard = alarm.guard && guardSignal(`${alarm.site}/${alarm.machine}/${alarm.guard}`);
  const agent = agents.value.get(`${alarm.site}/${alarm.agent}`);
  const site = (sites.value || []).find((item) => item.site === alarm.site);
  const parts = [];
  if (sites.value && sites.value.length > 1 && site) parts.push(label(site.labels, alarm.site));
  if (alarm.machine) parts.push(label(machine && machine.value.labels, alarm.machine));
  else if (alarm.agent) parts.push(label(agent && agent.labels, alarm.agent));
  if (alarm.guard) parts.push(label(guard && guard.value.labels, alarm.guard));
  else if (alarm.device) parts.push(alarm.device);
  return parts.join(" · ") || t("place.gateway");
}

async function acknowledge(alarm) {
  setOutcome(alarm.id, { kind: "busy" });
  try {
    const response = await fetch(`/api/v1/alarms/${alarm.id}/ack`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: "{}",
    });
    const answer = await response.json();
    if (response.ok) settle(alarm, { kind: "done" });
    else if (response.status === 409) settle(alarm, { kind: "conflict", who: answer.acked_by, at: answer.acked_at });
    else setOutcome(alarm.id, { kind: "failed", why: answer.detail || response.status });
  } catch {
    setOutcome(alarm.id, { kind: "failed", why: t("link.disconnected") });
  }
}

function settle(alarm, outcome) {
  setOutcome(alarm.id, { ...outcome, alarm });
  setTimeout(() => setOutcome(alarm.id, null), OUTCOME_MS);
}

function setOutcome(id, outcome) {
  const next = new Map(outcomes.value);
  if (outcome) next.set(id, outcome);
  else next.delete(id);
  outcomes.value = next;
}

function Act({ alarm }) {
  const outcome = outcomes.value.get(alarm.id);
  if (outcome && outcome.kind === "done") return html`<span class="done" role="status"><${Icon} name="check" /> ${t("ack.done")}</span>`;
  if (outcome && outcome.kind === "conflict") {
    const when = outcome.at ? moment(outcome.at, asOf.value) : "";
    return html`<span class="done" role="status"><${Icon} name="check" /> ${t("ack.conflict", { who: outcome.who, time: when })}</span>`;
  }
  const who = session.value;
  if (!who || who.anonymous) return html`<a class="button" href="/sign-in?next=/board">${t("ack.needs_sign_in")}</a>`;
  if (ROLES.indexOf(who.role) < 1) return html`<span>${t("ack.needs_role")}</span>`;
  const failed = outcome && outcome.kind === "failed"
    && html`<span class="failed" role="alert">${t("ack.failed", { why: outcome.why })}</span>`;
  const cut = !isLive.value && html`<span>${t("ack.no_link")}</span>`;
  return html`${failed}${cut}<button class="primary" disabled=${!isLive.value || (outcome && outcome.kind === "busy")}
    aria-label=${`${t("ack.label", { id: alarm.id })}: ${ruleName(alarm.rule)}, ${placeOf(alarm)}`}
    onClick=${() => acknowledge(alarm)}>${t("ack.button")}</button>`;
}

function Row({ alarm }) {
  const returned = alarm.letter === "D" ? t("alarms.returned") : alarm.letter === "E" ? t("alarms.latched") : null;
  const lasted = duration((alarm.cleared_at ? Date.parse(alarm.cleared_at) : asOf.value) - Date.parse(alarm.since));
  const calling = alarm.letter === "B" && alarm.priority < "P3";
  return html`<li data-alarm=${alarm.id}>
    <${Badge} priority=${alarm.priority} calling=${calling && isLive.value} />
    <a class="what" href=${`/alarms/${alarm.id}`}>${ruleName(alarm.rule)}</a>
    <span class="where">${placeOf(alarm)}</span>
    <span class="since">${t("alarms.since", { time: moment(alarm.since, asOf.value), duration: lasted })}</span>
    ${returned && html`<span class="chip"><${Icon} name="check" />${returned}</span>`}
    ${alarm.basis === "unknown" && html`<span class="chip"><${Icon} name="unknown" />${t("alarms.unproven")}</span>`}
    <span class="act"><${Act} alarm=${alarm} /></span>
  </li>`;
}

function BlindRow({ agent }) {
  const name = label(agent.labels, agent.agent);
  const since = agent.offline_since && Date.parse(agent.offline_since);
  const text = since
    ? t("blind.row", { agent: name, duration: duration(asOf.value - since), count: agent.blind_guards })
    : t("blind.never", { agent: name, count: agent.blind_guards });
  return html`<li class="blind"><${Icon} name="unknown" /><span>${text}</span></li>`;
}

export function Strip() {
  const settled = [...outcomes.value.values()].filter((outcome) => outcome.alarm).map((outcome) => outcome.alarm);
  const waiting = unseen.value;
  const rows = [...waiting, ...settled.filter((alarm) => !waiting.some((item) => item.id === alarm.id))];
  const { guards, unknown } = counts.value;
  const percent = guards ? Math.floor(((guards - unknown) / guards) * 1000) / 10 : 0;
  return html`<section class="strip" id="alarms" aria-labelledby="alarms-head">
    <h2 id="alarms-head">${t("alarms.head", { count: waiting.length })}</h2>
    <ul>
      ${rows.slice(0, ROWS_MAX).map((alarm) => html`<${Row} key=${alarm.id} alarm=${alarms.value.get(alarm.id) || alarm} />`)}
      ${blindAgents.value.map((agent) => html`<${BlindRow} key=${`${agent.site}/${agent.agent}`} agent=${agent} />`)}
    </ul>
    ${rows.length > ROWS_MAX && html`<p>${t("alarms.more", { count: rows.length - ROWS_MAX })}</p>`}
    ${rows.length === 0 && link.value !== "loading" && html`<p>${t("alarms.none", { time: clock(asOf.value), percent })}</p>`}
  </section>`;
}

// One alert line for P1 and P2, at most one message in five seconds, so that a burst does not silence a reader.
export function Announcer() {
  const line = useRef(null);
  const seen = useRef(null);
  const pending = useRef([]);
  const readyAt = useRef(0);
  useEffect(() => {
    const grave = unseen.value.filter((alarm) => alarm.letter === "B" && alarm.priority < "P3");
    if (seen.current === null) seen.current = new Set(grave.map((alarm) => alarm.id));
    const fresh = grave.filter((alarm) => !seen.current.has(alarm.id));
    fresh.forEach((alarm) => seen.current.add(alarm.id));
    pending.current.push(...fresh);
    const speak = () => {
      const [first, ...rest] = pending.current;
      if (!first || !line.current) return;
      pending.current = [];
      readyAt.current = performance.now() + ANNOUNCE_MS;
      const text = t("alarms.announce", { priority: first.priority, what: ruleName(first.rule), where: placeOf(first) });
      line.current.textContent = rest.length ? `${text} ${t("alarms.announce_more", { count: rest.length })}` : text;
    };
    if (!pending.current.length) return undefined;
    const timer = setTimeout(speak, Math.max(0, readyAt.current - performance.now()));
    return () => clearTimeout(timer);
  }, [unseen.value]);
  return html`<p class="said" role="alert" ref=${line}></p>`;
}
