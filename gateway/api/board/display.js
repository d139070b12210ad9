// How a guard looks: from what the gateway says to a look, an icon and the key of a word. Pure.
//
// The word SAFE is never a state; unknown never looks closed; the same state of an emergency stop and of a door has
// different words.

const FAMILY = {
  interlocked_door: "door", locked_door: "door", trapped_key: "key", light_curtain: "curtain", safety_mat: "mat",
  pull_cord: "cord", estop: "estop", two_hand: "hands",
};
const QUIET_ICON = { door: "closed", key: "key", curtain: "curtain", mat: "mat", cord: "cord", estop: "estop", hands: "hands" };

export function familyOf(kind) {
  return FAMILY[kind] || "door";
}

function motionOf(moving) {
  if (moving === true) return "run";
  return moving === false ? "stop" : "unknown";
}

// The word for a state that was or is: used for the present and, as history, for "last closed 14:03:26".
export function wordOf(kind, state, moving, locked) {
  const family = familyOf(kind);
  const motion = motionOf(moving);
  switch (state) {
    case "closed_locked":
      return family === "door" || family === "key" ? `${family}.locked` : `${family}.closed`;
    case "closed":
      return kind === "locked_door" && locked === false ? `lock.unlocked_${motion}` : `${family}.closed`;
    case "open":
      return `${family}.open_${motion}`;
    default:
      return `state.${state}`;
  }
}

export function lookOf(guard, moving) {
  const family = familyOf(guard.kind);
  const word = wordOf(guard.kind, guard.state, moving, guard.locked);
  switch (guard.state) {
    case "closed_locked":
      return { look: "closed", icon: family === "door" ? "lock" : QUIET_ICON[family], word };
    case "closed":
      if (guard.kind === "locked_door" && guard.locked === false) return openLook(moving, word);
      return { look: "closed", icon: QUIET_ICON[family], word };
    case "open":
      return guard.priority === "P1" ? { look: "violation", icon: "violation", word } : openLook(moving, word);
    case "bypassed":
      return { look: "bypass", icon: "bypass", word };
    case "fault":
      return { look: "fault", icon: "fault", word };
    case "out_of_service":
      return { look: "out", icon: "out", word };
    default:
      return { look: "unknown", icon: "unknown", word: "state.unknown" };
  }
}

function openLook(moving, word) {
  return moving === true ? { look: "violation", icon: "violation", word } : { look: "open", icon: "open", word };
}
