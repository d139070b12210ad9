// What the server said, in signals: one per guard and machine, so that a change repaints one tile and nothing else.
import { batch, computed, signal } from "./vendor/ui.js";

export const sites = signal(null); // the frame: ids and labels in fixed places; null before the first board
export const alarms = signal(new Map());
export const agents = signal(new Map());
export const session = signal(null);

const guards = new Map();
const machines = new Map();
const version = signal(0); // moves when any guard or machine changed, once per painted frame

export const guardKey = (guard) => `${guard.site}/${guard.machine}/${guard.guard}`;
export const machineKey = (machine) => `${machine.site}/${machine.machine}`;
export const guardSignal = (key) => guards.get(key);
export const machineSignal = (key) => machines.get(key);

export function applyBoard(board, alarmItems, agentItems) {
  batch(() => {
    guards.clear();
    machines.clear();
    for (const machine of machinesOf(board)) {
      machines.set(machineKey(machine), signal(machine));
      for (const guard of machine.guards) guards.set(guardKey(guard), signal(guard));
    }
    sites.value = board.sites.map((site) => ({
      site: site.site,
      labels: site.labels,
      areas: site.areas.map((area) => ({
        area: area.area,
        labels: area.labels,
        machines: area.machines.map((machine) => ({ key: machineKey(machine), guards: machine.guards.map(guardKey) })),
      })),
    }));
    alarms.value = new Map(alarmItems.map((alarm) => [alarm.id, alarm]));
    agents.value = new Map(agentItems.map((agent) => [`${agent.site}/${agent.agent}`, agent]));
    version.value += 1;
  });
}

function* machinesOf(board) {
  for (const site of board.sites) for (const area of site.areas) yield* area.machines;
}

// Applies live messages together. Says whether the frame of the board is still the right one: a machine or guard that
// is not on it means that the board must be fetched again.
export function applyMessages(messages) {
  let isComplete = true;
  batch(() => {
    const nextAlarms = new Map(alarms.value);
    const nextAgents = new Map(agents.value);
    for (const { event, data } of messages) {
      if (event === "guard") isComplete = put(guards, guardKey(data), data) && isComplete;
      else if (event === "machine") isComplete = putMachine(data) && isComplete;
      else if (event === "alarm") nextAlarms.set(data.id, data);
      else if (event === "agent") nextAgents.set(`${data.site}/${data.agent}`, data);
    }
    alarms.value = nextAlarms;
    agents.value = nextAgents;
    version.value += 1;
  });
  return isComplete;
}

function put(store, key, value) {
  const known = store.get(key);
  if (known) known.value = value;
  return Boolean(known);
}

function putMachine(machine) {
  const known = machines.get(machineKey(machine));
  if (!known || known.value.guards.length !== machine.guards.length) return false;
  known.value = machine;
  return machine.guards.every((guard) => put(guards, guardKey(guard), guard));
}

export const counts = computed(() => {
  version.value;
  const found = { guards: 0, unknown: 0, bypassed: 0, fault: 0, out_of_service: 0 };
  for (const { value } of guards.values()) {
    found.guards += 1;
    if (value.state in found) found[value.state] += 1;
  }
  return found;
});

const UNSEEN = new Set(["B", "D", "E"]);
const ACTIVE = new Set(["B", "C"]);

export const unseen = computed(() =>
  [...alarms.value.values()]
    .filter((alarm) => UNSEEN.has(alarm.letter))
    .sort((one, other) => one.priority.localeCompare(other.priority) || other.since.localeCompare(one.since)),
);

export const alarmCounts = computed(() => {
  const found = { P1: 0, P2: 0, P3: 0, P4: 0, shelved: 0, out: 0 };
  for (const alarm of alarms.value.values()) {
    if (ACTIVE.has(alarm.letter)) found[alarm.priority] += 1;
    if (alarm.letter === "G") found.shelved += 1;
    if (alarm.letter === "I") found.out += 1;
  }
  return found;
});

// Agents whose guards are unknown because nothing comes from them.
export const blindAgents = computed(() => [...agents.value.values()].filter((agent) => !agent.online));
