// Everything that the board's own modules may import, in one file without bare specifiers, so that a
// strict Content-Security-Policy (script-src 'self', no import map) can serve it.
import { h, render } from "preact";
import htm from "htm";

export { h, render };
export { useEffect, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal } from "@preact/signals";
export const html = htm.bind(h);
