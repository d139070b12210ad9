// Texts in two languages from two flat catalogues, and how times and durations read.
import { computed, signal } from "./vendor/ui.js";

const LANGUAGES = ["zh", "en"];
const catalogues = signal({ zh: {}, en: {} });
let timeZone = "UTC";

export const language = signal(document.documentElement.lang.startsWith("zh") ? "zh" : "en");

export async function loadWords() {
  const texts = await Promise.all(LANGUAGES.map((name) => fetch(`/static/words/${name}.json`).then((r) => r.json())));
  catalogues.value = { zh: texts[0], en: texts[1] };
}

export function setTimeZone(name) {
  timeZone = name;
  formatters.clear();
}

export function setLanguage(name) {
  language.value = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  remember("guardwatch_language", name);
}

export function otherLanguage() {
  return language.value === "zh" ? "en" : "zh";
}

// A year, for the plain pages that the server writes: they read it from the request.
export function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}

export function t(key, values) {
  const text = catalogues.value[language.value][key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => String(values[name])) : text;
}

export function has(key) {
  return key in catalogues.value[language.value];
}

export function label(labels, fallback) {
  return (labels && (labels[language.value] || labels.en || labels.zh)) || fallback;
}

export function ruleName(rule) {
  const key = `rule.${rule}`;
  return has(key) ? t(key) : rule;
}

const formatters = new Map();

function formatter(options) {
  const key = JSON.stringify(options);
  if (!formatters.has(key)) {
    // en-GB: 24 hours in both languages; the plant's own time zone, never the browser's
    formatters.set(key, new Intl.DateTimeFormat("en-GB", { timeZone, hourCycle: "h23", ...options }));
  }
  return formatters.get(key);
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const DAY = { year: "numeric", month: "2-digit", day: "2-digit" };

export function clock(ms) {
  return formatter(CLOCK).format(ms);
}

// Time of day; with the date in front when it is not today.
export function moment(text, nowMs) {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return "?";
  const day = formatter(DAY);
  if (day.format(ms) === day.format(nowMs)) return clock(ms);
  const parts = Object.fromEntries(day.formatToParts(ms).map((part) => [part.type, part.value]));
  return `${parts.month}-${parts.day} ${clock(ms)}`;
}

const two = (number) => String(number).padStart(2, "0");

export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(seconds / 3600);
  if (hours >= 24) return t("duration.days", { days: Math.floor(hours / 24), hours: hours % 24 });
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export const otherLanguageName = computed(() => t("language.other"));
