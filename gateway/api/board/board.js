// The board's frame: header with the counters and the link's state, the band, the alarms, the plant, the disclaimer.
import { effect, html, render, signal } from "./vendor/ui.js";
import { Announcer, Badge, Icon, Strip } from "./alarms.js";
import { asOf, isLive, link, silentMs, skewMs, start } from "./link.js";
import { alarmCounts, counts, session, sites } from "./model.js";
import { Empty, Sites } from "./tiles.js";
import { clock, duration, language, loadWords, otherLanguage, otherLanguageName, remember, setLanguage, t } from "./words.js";

const THEMES = ["auto", "light", "dark"];
const THEME_ICON = { auto: "auto", light: "sun", dark: "moon" };
const THEME_MEDIA = { auto: "(prefers-color-scheme: dark)", light: "not all", dark: "all" };
const darkLink = document.getElementById("dark");
const theme = signal(THEMES.find((name) => THEME_MEDIA[name] === darkLink.media) || "auto");

function turnTheme() {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length];
  darkLink.media = THEME_MEDIA[theme.value];
  remember("guardwatch_theme", theme.value);
}

const LINK_ICON = { loading: "clock", live: "check", delayed: "clock", disconnected: "cross", resync: "clock" };

function Link() {
  const seconds = Math.floor(silentMs.value / 1000);
  return html`<span class=${`link link-${link.value}`} data-link=${link.value}>
    <${Icon} name=${LINK_ICON[link.value]} />${t(`link.${link.value}`, { seconds })}
    ${asOf.value > 0 && html` <time>${clock(asOf.value)}</time>`}
  </span>`;
}

function Count({ name, number, icon }) {
  return html`<li class=${number > 0 ? "is-some" : ""}><${Icon} name=${icon} />${t(`count.${name}`)} <b>${number}</b></li>`;
}

function Counts() {
  const { unknown, bypassed, fault, out_of_service: out } = counts.value;
  const found = alarmCounts.value;
  return html`<ul class="counts">
    ${["P1", "P2", "P3", "P4"].map((priority) => html`<li key=${priority} class=${found[priority] > 0 ? "is-some" : ""}>
      <${Badge} priority=${priority} /><b>${found[priority]}</b><span class="said">${t("count.priority", { priority })}</span></li>`)}
    <${Count} name="bypassed" number=${bypassed} icon="bypass" />
    <${Count} name="fault" number=${fault} icon="fault" />
    <${Count} name="shelved" number=${found.shelved} icon="clock" />
    <${Count} name="out" number=${out} icon="out" />
    <${Count} name="blind" number=${isLive.value ? unknown : counts.value.guards} icon="unknown" />
  </ul>`;
}

function Who() {
  const who = session.value;
  return html`<div class="who">
    ${who && (who.anonymous
      ? html`<a class="button" href="/sign-in?next=/board">${t("user.sign_in")}</a>`
      : html`<span><${Icon} name="person" /> ${who.name} (${t(`role.${who.role}`)})</span>
          <form method="post" action="/sign-out"><button>${t("user.sign_out")}</button></form>`)}
    <button onClick=${turnTheme} aria-label=${t(`theme.${theme.value}`)} title=${t(`theme.${theme.value}`)} data-theme=${theme.value}>
      <${Icon} name=${THEME_ICON[theme.value]} /></button>
    <button onClick=${() => setLanguage(otherLanguage())} lang=${otherLanguage() === "zh" ? "zh-CN" : "en"} data-language>${otherLanguageName.value}</button>
  </div>`;
}

function toFirstAbnormal(event) {
  const tile = document.querySelector(".guard:not(.v-closed)") || document.querySelector(".guard");
  if (!tile) return;
  event.preventDefault();
  tile.tabIndex = 0;
  tile.focus();
}

function App() {
  const isOff = link.value === "disconnected";
  return html`
    <a class="skip" href="#plant" onClick=${toFirstAbnormal}>${t("skip")}</a>
    <div class="frame" role="banner">
      <div class="top">
        <h1>${t("product")}</h1>
        <${Counts} /><${Link} /><${Who} />
      </div>
      ${isOff && html`<div class="band"><${Icon} name="cross" />${t("band.disconnected", { duration: duration(silentMs.value) })}</div>`}
    </div>
    <p class="said" role="status">${isOff ? t("link.said_disconnected") : link.value === "live" ? t("link.said_live") : ""}</p>
    <${Announcer} />
    ${link.value === "resync" && html`<div class="notice">${t("band.resync")}</div>`}
    ${skewMs.value !== 0 && html`<div class="notice">${t("band.skew", { seconds: Math.round(skewMs.value / 1000) })}</div>`}
    ${session.value && !session.value.alerting && html`<div class="notice"><${Icon} name="violation" /> ${t("band.alerting_off")}</div>`}
    <main id="plant" tabindex="-1">
      ${sites.value === null ? html`<p>${t("loading")}</p>` : html`<${Strip} />${hasMachines(sites.value) ? html`<div><${Sites} /></div>` : html`<${Empty} />`}`}
    </main>
    <footer>${["zh", "en"].map((name) => html`<p key=${name} lang=${name === "zh" ? "zh-CN" : "en"}>${disclaimers[name]}</p>`)}</footer>`;
}

const hasMachines = (found) => found.some((site) => site.areas.some((area) => area.machines.length > 0));

const root = document.getElementById("board");
const disclaimers = { zh: root.dataset.disclaimerZh, en: root.dataset.disclaimerEn };
const favicon = document.getElementById("favicon");

effect(() => {
  const isOff = link.value === "disconnected";
  document.body.classList.toggle("is-disconnected", isOff);
  document.title = isOff ? t("link.title_off") : t("title");
  favicon.href = isOff ? "/static/favicon-off.svg" : "/static/favicon.svg";
  language.value;
});

loadWords().then(() => {
  root.textContent = "";
  render(html`<${App} />`, root);
  return start();
});
