// The page: its head, its tabs, its theme.

document.getElementById("title").textContent = page.title;
document.getElementById("subtitle").textContent =
  `Preview by ${page.generator} · splits ${page.splitBy === "patient" ? "by patient" : "as published"}`;

const PANELS = { pictures: galleryPanel, scans: galleryPanel, patients: patientsPanel };
const sections = page.configs.map((config) => ({
  name: config.name,
  count: config.items.length,
  fill: () => PANELS[config.kind](config),
}));
if (page.audit) sections.push({ name: "audit", count: null, fill: () => auditPanel(page.audit) });

const content = document.getElementById("content");
const tabs = sections.map((section, place) => {
  const tab = element(
    "button",
    { type: "button", role: "tab", id: `tab-${place}`, "aria-controls": `panel-${place}`, onclick: () => select(place) },
    section.name,
    section.count === null ? null : element("span", { className: "count" }, section.count),
  );
  section.panel = element("div", { role: "tabpanel", id: `panel-${place}`, "aria-labelledby": `tab-${place}`, hidden: true });
  content.append(section.panel);
  return tab;
});
const bar = document.getElementById("tabs");
bar.append(...tabs);

function select(place) {
  sections.forEach((section, own) => {
    section.panel.hidden = own !== place;
    tabs[own].setAttribute("aria-selected", String(own === place));
    tabs[own].tabIndex = own === place ? 0 : -1;
  });
  bar.scrollLeft = tabs[place].offsetLeft - bar.clientWidth / 2; // on a phone the tabs are wider than the screen
  const section = sections[place];
  if (!section.panel.hasChildNodes()) section.panel.append(...section.fill());
  window.history.replaceState(null, "", `#${encodeURIComponent(section.name)}`);
}

// tabs as the ARIA Authoring Practices have them: one stop, arrows walk
bar.addEventListener("keydown", (event) => {
  const place = tabs.indexOf(document.activeElement);
  const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (place < 0 || next === undefined) return;
  event.preventDefault();
  const target = (next + tabs.length) % tabs.length;
  select(target);
  tabs[target].focus();
});

const wanted = decodeURIComponent(window.location.hash.slice(1));
select(Math.max(0, sections.findIndex((section) => section.name === wanted)));

// the system's theme, until the reader chooses; a browser may forbid a local file to remember
const theme = document.getElementById("theme");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
try { root.dataset.theme = localStorage.getItem("theme") ?? ""; } catch { /* not remembered */ }
if (!root.dataset.theme) delete root.dataset.theme;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not remembered */ }
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();
