// The page: heading, tabs and theme.

document.getElementById("title").textContent = page.title;
document.getElementById("subtitle").textContent =
  `Preview by ${page.generator} · splits ${page.splitBy === "patient" ? "by patient" : "as published"}` +
  (page.limit ? ` · not complete: at most ${page.limit} examples of each split` : "");

const sections = page.configs.map((config) => ({
  name: config.name,
  count: config.items.length,
  fill: () => (config.longitudinal ? patientsPanel(config) : galleryPanel(config)),
  list: () => (config.longitudinal ? inOrderOfTime(config.items) : config.items).map((item) => [config, item]),
}));
if (page.audit) sections.push({ name: "audit", count: null, fill: () => auditPanel(page.audit) });

const content = document.getElementById("content");
const tabs = sections.map((section, index) => {
  const tab = element(
    "button",
    { type: "button", role: "tab", id: `tab-${index}`, "aria-controls": `panel-${index}`, onclick: () => select(index) },
    section.name,
    section.count === null ? null : element("span", { className: "count" }, section.count),
  );
  section.panel = element("div", { role: "tabpanel", id: `panel-${index}`, "aria-labelledby": `tab-${index}`, hidden: true });
  content.append(section.panel);
  return tab;
});
const bar = document.getElementById("tabs");
bar.append(...tabs);

let selected = 0;

function select(index) {
  selected = index;
  sections.forEach((section, other) => {
    section.panel.hidden = other !== index;
    tabs[other].setAttribute("aria-selected", String(other === index));
    tabs[other].tabIndex = other === index ? 0 : -1;
  });
  bar.scrollLeft = tabs[index].offsetLeft - bar.clientWidth / 2; // on a phone the tabs are wider than the screen
  const section = sections[index];
  if (!section.panel.hasChildNodes()) section.panel.append(...section.fill());
  linkChanged();
}

// keyboard use as in the ARIA Authoring Practices: Tab reaches the selected tab, and the arrow keys select another one
bar.addEventListener("keydown", (event) => {
  const index = tabs.indexOf(document.activeElement);
  const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (index < 0 || next === undefined) return;
  event.preventDefault();
  const target = (next + tabs.length) % tabs.length;
  select(target);
  tabs[target].focus();
});

followLink();
window.addEventListener("hashchange", followLink);
content.addEventListener("keydown", walkCards);

// the theme of the system until the reader chooses one; a browser may not let a local file store the choice
const theme = document.getElementById("theme");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
try { root.dataset.theme = localStorage.getItem("theme") ?? ""; } catch { /* not stored */ }
if (!root.dataset.theme) delete root.dataset.theme;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not stored */ }
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();
