// The keys and gestures of the viewer.

const HELP = [
  [["↑", "↓"], "one slice; so does the wheel"],
  [["PgUp", "PgDn"], "ten slices"],
  [["Home", "End"], "first and last slice"],
  [["N"], "next nodule"],
  [["←", "→"], "previous and next example"],
  [["1", "2"], "lung window, mediastinal window"],
  [["+", "−", "0"], "zoom in, zoom out, fit; also Ctrl and the wheel, or two fingers"],
  [["C", "W", "P", "R"], "dragging sets the crosshair, changes the window (up and down the centre, left and right the width), moves the picture, or draws a ruler"],
  [["right button"], "dragging changes the window, whatever the tool; the middle button moves the picture"],
  [["S"], "next thickness of the slab: each pixel is the maximum through it (MIP)"],
  [["Del"], "remove the rulers"],
  [["M"], "marks of nodules"],
  [["?"], "this list"],
  [["Esc"], "close"],
];

/** The list of keys, folded. */
function helpOf() {
  return element(
    "details",
    { className: "help" },
    element("summary", {}, "Keys and gestures"),
    element("dl", {}, HELP.flatMap(([keys, text]) => [
      element("dt", {}, keys.flatMap((key) => [element("kbd", {}, key), " "])),
      element("dd", {}, text),
    ])),
    element("p", { className: "quiet" }, "A click moves the crosshair of all planes. A finger scrolls the slices."),
  );
}

function toggleHelp() {
  const help = dialog.querySelector(".help");
  if (!help) return;
  help.open = !help.open;
  if (help.open) {
    help.scrollIntoView({ block: "nearest" });
    help.querySelector("summary").focus();
  }
}
