// The dialog that shows one example of a list, a scan or a picture, and steps through the list.

const dialog = document.getElementById("viewer");
let shown = null; // { list, index, other, view, track }

/**
 * Show one example of a list of [config, item]. `place` has the number of a `nodule` (otherwise the largest), a position `at`
 * as in the build, and the index of an `other` scan to show next to it.
 */
function openViewer(list, index, place = {}) {
  shown?.view?.close();
  const [config, item] = list[index];
  const others = comparable(list, index);
  const other = others.includes(place.other) ? place.other : null;
  shown = { list, index, other, view: null, track: shown?.track ?? null };
  document.getElementById("viewer-title").textContent =
    other === null ? titleOf(config, item) : [config.name, `patient ${item.patient}`, "two scans"].join(" · ");
  fillComparison(others);
  const details = [`${item.split}, row ${item.row}`, item.fold === null || item.fold === undefined ? null : `fold ${item.fold}`];
  if (item.augmented !== undefined) details.push({ true: "augmented copy", false: "original" }[item.augmented] ?? "augmented or original: unknown");
  document.getElementById("viewer-facts").textContent =
    `${details.filter(Boolean).join(" · ")} · example ${index + 1} of ${list.length}`;
  document.getElementById("previous").disabled = index === 0;
  document.getElementById("next").disabled = index === list.length - 1;
  if (!dialog.open) dialog.showModal();
  const body = document.getElementById("viewer-body");
  if (!item.scan) shown.view = new PictureView(body, item);
  else if (!page.scans[item.scan].slices) shown.view = new StillView(body, item);
  else if (other === null) shown.view = new ScanView(body, item, place);
  else shown.view = new CompareView(body, [item, list[other][1]], place);
  linkChanged();
}

/** The choice of a scan to compare with; hidden if the patient has no other scan. */
function fillComparison(others) {
  const select = document.getElementById("compare");
  select.closest("label").hidden = !others.length;
  select.replaceChildren(
    element("option", { value: "" }, "none"),
    ...others.map((number) => element("option", { value: number, selected: number === shown.other }, dayAndThickness(shown.list[number][1]))),
  );
}

document.getElementById("compare").addEventListener("change", (event) => {
  showComparison(event.target.value === "" ? null : Number(event.target.value), shown.view.at);
});

/** The nodule of a scan that belongs to the track on which the viewer is; null if none does. */
function sameTrack(item) {
  const nodules = item.scan ? page.scans[item.scan].nodules : [];
  const number = nodules.findIndex((nodule) => nodule.track && nodule.track === shown.track);
  return number < 0 ? null : number;
}

function openNeighbour(by) {
  const next = shown.list[shown.index + by];
  if (next) openViewer(shown.list, shown.index + by, { nodule: sameTrack(next[1]) });
}

document.getElementById("previous").addEventListener("click", () => openNeighbour(-1));
document.getElementById("next").addEventListener("click", () => openNeighbour(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  shown?.view?.close();
  shown = null;
  document.getElementById("viewer-body").replaceChildren();
  linkChanged();
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input[type=number], select")) return;
  if (event.target.matches("input") && event.key.length > 1 && event.key !== "Delete") return; // the slider handles arrow keys itself
  if (event.key === "ArrowLeft") openNeighbour(-1);
  else if (event.key === "ArrowRight") openNeighbour(1);
  else if (!shown?.view?.press(event.key)) return;
  event.preventDefault();
});

/** A picture with its boxes, or a row without a picture. */
class PictureView {
  constructor(body, item) {
    const boxes = (item.boxes ?? []).map((box, number) => [`box ${number + 1}`, `${box.join(", ")} (xmin, ymin, xmax, ymax in pixels)`]);
    body.replaceChildren(
      element(
        "div",
        { className: "single" },
        element("div", { className: "stage" }, item.picture ? pictureOf(item, "the example") : "no picture"),
        element(
          "div",
          { className: "about" },
          item.classes.length ? element("p", {}, classLabel(item.classes[0])) : null,
          factList([
            ...(item.id ? [["id", item.id]] : []),
            ...(item.picture ? [["size", `${item.width} × ${item.height} pixels`]] : []),
            ...(item.stretchedFrom ? [["greys", `labels 0 to ${item.stretchedFrom}, stretched`]] : []),
            ...boxes,
            ...listedFacts(item),
            ...(item.patient === undefined ? [] : [["patient", item.patient]]),
          ]),
        ),
      ),
    );
    if (item.picture) this.enlarge(body.querySelector(".stage"), body.querySelector(".picture"), item.width / item.height);
  }

  /** The wheel and the keys + and − enlarge the picture, and dragging moves it. */
  enlarge(stage, picture, shape) {
    this.zoom = new Zoom(stage, picture, shape);
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom.by(Math.exp(-Math.sign(event.deltaY) / 5), event.clientX, event.clientY);
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => { event.preventDefault(); stage.setPointerCapture(event.pointerId); });
    stage.addEventListener("pointermove", (event) => { if (event.buttons) this.zoom.pan(event.movementX, event.movementY); });
  }

  press(key) {
    const ratio = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP }[key];
    const bounds = this.zoom?.stage.getBoundingClientRect();
    if (bounds && ratio) this.zoom.by(ratio, bounds.left + bounds.width / 2, bounds.top + bounds.height / 2);
    else if (bounds && key === "0") this.zoom.reset();
    else return false;
    return true;
  }

  close() {}
}

/** The columns of an example that the page shows only as text, as [name, text]. */
function listedFacts(item) {
  return Object.entries(item.facts ?? {}).map(([name, value]) => [name, value === null ? null : String(value)]);
}
