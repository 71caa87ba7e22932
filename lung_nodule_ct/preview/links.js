// The address of what is shown: #tab&example=split-row&at=x,y,z&nodule=number&with=split-row, all as in the build.

const LINK_MS = 400; // browsers limit how often a page may change its address

const exampleName = (item) => `${item.split}-${item.row}`;

/** The part of the address after #. */
function hashOf() {
  const parts = [encodeURIComponent(sections[selected].name)];
  if (shown) {
    parts.push(`example=${encodeURIComponent(exampleName(shown.list[shown.index][1]))}`);
    if (shown.view?.at) parts.push(`at=${shown.view.at.join(",")}`);
    const nodule = shown.view?.currentNodule ?? -1;
    if (nodule >= 0) parts.push(`nodule=${nodule + 1}`);
    if (shown.other !== null) parts.push(`with=${encodeURIComponent(exampleName(shown.list[shown.other][1]))}`);
  }
  return `#${parts.join("&")}`;
}

let linkTimer = 0;

/** Update the address soon. */
function linkChanged() {
  linkTimer ||= setTimeout(() => {
    linkTimer = 0;
    if (window.location.hash !== hashOf()) window.history.replaceState(null, "", hashOf());
  }, LINK_MS);
}

/** Show what the address names. What the page does not have is ignored. */
function followLink() {
  const [tab, ...parts] = window.location.hash.slice(1).split("&").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  const wanted = Object.fromEntries(parts.map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]));
  select(Math.max(0, sections.findIndex((section) => section.name === tab)));
  const { list } = sections[selected];
  const { example } = wanted;
  const find = (name) => (name ? (list?.() ?? []).findIndex(([, item]) => exampleName(item) === name) : -1);
  const index = find(example);
  if (index < 0) {
    if (dialog.open) dialog.close();
    return;
  }
  const at = (wanted.at ?? "").split(",").map(Number);
  const other = find(wanted.with);
  openViewer(list(), index, {
    at: wanted.at && at.length === 3 && at.every(Number.isInteger) ? at : null,
    nodule: wanted.nodule ? Number(wanted.nodule) - 1 : null,
    other: other < 0 ? null : other,
  });
}
