// The dialog: a scan, or one picture. Opened on one example of a list, it walks through the list.

const dialog = document.getElementById("viewer");
const PRESETS = page.windows.map((preset) => ({ ...preset, greys: greysOf(preset) }));
const PLAIN = { name: "grey", greys: greysOf(null) };

/** What the reader has chosen; it stays from scan to scan. */
const chosen = { preset: 0, circles: true, boxes: true, crosshair: true, mask: false };

let shown = null; // { config, list, place, view }

/** Show one example of a list of [config, item]. */
function openViewer(list, place) {
  shown?.view?.close();
  const [config, item] = list[place];
  shown = { list, place, view: null };
  document.getElementById("viewer-title").textContent = titleOf(config, item);
  const where = [`${item.split} ${item.row}`, item.fold === null || item.fold === undefined ? null : `fold ${item.fold}`];
  if (item.augmented !== undefined) where.push({ true: "augmented copy", false: "original" }[item.augmented] ?? "augmented: unknown");
  document.getElementById("viewer-facts").textContent =
    `${where.filter(Boolean).join(" · ")} · example ${place + 1} of the ${list.length} listed`;
  document.getElementById("previous").disabled = place === 0;
  document.getElementById("next").disabled = place === list.length - 1;
  if (!dialog.open) dialog.showModal();
  const body = document.getElementById("viewer-body");
  shown.view = item.scan ? new ScanView(body, page.scans[item.scan], item) : new PictureView(body, item);
}

function walk(by) {
  const place = shown.place + by;
  if (shown.list[place]) openViewer(shown.list, place);
}

document.getElementById("previous").addEventListener("click", () => walk(-1));
document.getElementById("next").addEventListener("click", () => walk(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  shown?.view?.close();
  shown = null;
  document.getElementById("viewer-body").replaceChildren();
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input") && event.key.length > 1) return; // arrows and the like are the slider's own
  if (event.key === "ArrowLeft") walk(-1);
  else if (event.key === "ArrowRight") walk(1);
  else if (!shown?.view?.press(event.key)) return;
  event.preventDefault();
});

/** A crop or a slice with its boxes. */
class PictureView {
  constructor(body, item) {
    const boxes = item.boxes.map((box, number) => [`box ${number + 1}`, `${box.join(", ")} (xmin, ymin, xmax, ymax in pixels)`]);
    body.replaceChildren(
      element(
        "div",
        { className: "single" },
        element("div", { className: "stage" }, pictureOf(item, "the example")),
        element(
          "div",
          { className: "about" },
          item.classes.length ? element("p", {}, classLabel(item.classes[0])) : null,
          factList([
            ["image", item.id],
            ["size", `${item.width} × ${item.height} pixels`],
            ...boxes,
            ["patient", item.patient],
          ]),
        ),
      ),
    );
    fitPicture(body.querySelector(".stage"), body.querySelector(".picture"), item.width / item.height);
  }

  press() {
    return false;
  }

  close() {}
}

/** Make a picture as large as its stage allows, at its shape. */
function fitPicture(stage, picture, shape) {
  new ResizeObserver(() => {
    const width = Math.min(stage.clientWidth, stage.clientHeight * shape);
    picture.style.width = `${width}px`;
    picture.style.height = `${width / shape}px`;
  }).observe(stage);
}
