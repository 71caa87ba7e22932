// The tools above a scan, or above two scans.

const SLABS = [0, 5, 10, 20, 40]; // thickness in mm
const ZOOM_STEP = 1.5;

/** The window: presets and two numbers. `host.windowChanged` draws again. */
function windowTools(host) {
  const { scan } = host.sides[0];
  if (scan.stretchedFrom) return { root: element("span", {}, `labels 0 to ${scan.stretchedFrom}, stretched`), update: () => {} };
  const presets = scan.hounsfield ? PRESETS : [ALL_GREYS];
  const set = (center, width) => { setWindow(scan, center, width); host.windowChanged(); };
  const radios = presets.map((preset) => element("input", {
    type: "radio", name: "preset", value: preset.name, onchange: () => set(preset.center, preset.width),
  }));
  const number = (name, title, min, max) => element("input", {
    type: "number", name: `window-${name}`, min, max, step: 1, "aria-label": title,
    onchange: (event) => set(...["center", "width"].map((one) => (one === name ? Number(event.target.value) : windowOf(scan)[one]))),
  });
  const limits = scan.hounsfield ? WINDOW_LIMITS.hounsfield : WINDOW_LIMITS.greys;
  const numbers = { center: number("center", "centre of the window", ...limits.center), width: number("width", "width of the window", ...limits.width) };
  const update = () => {
    const current = windowOf(scan);
    presets.forEach((preset, index) => { radios[index].checked = preset.name === current.name; });
    for (const [name, input] of Object.entries(numbers)) input.value = Math.round(current[name]);
  };
  update();
  const root = element(
    "fieldset",
    {},
    element("legend", {}, "Window"),
    presets.map((preset, index) => element("label", {}, radios[index], scan.hounsfield ? `${preset.name} ${windowText(preset)}` : preset.name)),
    element("span", { className: "numbers" }, numbers.center, " / ", numbers.width, scan.hounsfield ? " HU" : " of 255"),
    scan.hounsfield ? null : element("span", { className: "quiet" }, "8-bit greys as published, not in Hounsfield units"),
  );
  return { root, update };
}

/** What dragging does, as radio buttons. */
function dragTools() {
  return element(
    "fieldset",
    {},
    element("legend", {}, "Drag"),
    Object.entries(TOOLS).map(([name, { text }]) => element("label", {}, element("input", {
      type: "radio", name: "tool", value: name, checked: chosen.tool === name, onchange: () => chooseTool(name),
    }), text)),
  );
}

function chooseTool(name) {
  chosen.tool = name;
  dialog.dataset.tool = name;
  const radio = dialog.querySelector(`input[name=tool][value=${name}]`);
  if (radio) radio.checked = true;
}

function zoomTools(host) {
  const button = (text, name, onclick) => element("button", { type: "button", className: "plain small", "aria-label": name, onclick }, text);
  return element(
    "div",
    { className: "group", role: "group", "aria-label": "zoom" },
    button("−", "zoom out", () => host.zoom(1 / ZOOM_STEP)),
    button("+", "zoom in", () => host.zoom(ZOOM_STEP)),
    button("Fit", "fit the planes", () => host.zoom(0)),
  );
}

function slabTools(host) {
  const unit = host.sides[0].scan.spacing ? "mm" : "voxels";
  return element("label", {}, "Slab", element(
    "select",
    { name: "slab", onchange: (event) => { chosen.slab = Number(event.target.value); host.redraw(); } },
    SLABS.map((size) => element("option", { value: size, selected: chosen.slab === size }, size ? `MIP ${size} ${unit}` : "one slice")),
  ));
}

function showTools(host) {
  const hasMask = host.sides.some((side) => side.volume.masks.length);
  const toggle = (name, text, line) => element("label", {}, element("input", {
    type: "checkbox", checked: chosen[name], name, disabled: name === "mask" && !hasMask,
    onchange: (event) => { chosen[name] = event.target.checked; host.applyMarks(); if (name === "mask") host.showMasks(); },
  }), line ? element("span", { className: `legend-line ${line}`, "aria-hidden": "true" }) : null, text);
  return element(
    "fieldset",
    {},
    element("legend", {}, "Show"),
    toggle("circles", "sphere", "circle"),
    toggle("boxes", "voxel box", "box"),
    toggle("crosshair", "crosshair", "crosshair"),
    toggle("mask", hasMask ? "lung mask" : "lung mask (none)"),
  );
}

/** Show or hide the marks over some planes. */
function applyMarksTo(planes) {
  for (const name of ["circles", "boxes", "crosshair"]) planes.classList.toggle(`without-${name}`, !chosen[name]);
}

/**
 * The toolbar. `host` has `sides` (one or two scans), `redraw`, `applyMarks` and `showMasks`; it gets `windowChanged`,
 * `rulersChanged`, `zoom` and `pressTool`.
 */
function toolbarOf(host) {
  const windows = windowTools(host);
  const clear = element("button", { type: "button", className: "plain small", hidden: true, onclick: () => clearRulers() });
  const clearRulers = () => {
    for (const side of host.sides) side.rulers.length = 0;
    host.redraw([]);
    host.rulersChanged();
  };
  host.windowChanged = () => { windows.update(); host.redraw(); };
  host.rulersChanged = () => {
    const rulers = host.sides.flatMap((side) => side.rulers.map((ruler) => rulerText(side.scan, ruler)));
    clear.hidden = !rulers.length;
    clear.textContent = `Remove ${counted(rulers.length, "ruler")}`;
    if (rulers.length) host.status.textContent = `ruler: ${rulers.at(-1)}`;
  };
  host.zoom = (ratio) => {
    const [{ panes }] = host.sides; // of two scans, the other one follows
    for (const pane of panes) {
      if (ratio) pane.zoom.by(ratio, ...pane.crosshairAt());
      else pane.zoom.reset();
    }
  };
  host.pressTool = (key) => {
    const tool = Object.keys(TOOLS).find((name) => TOOLS[name].key === key);
    if (tool) chooseTool(tool);
    else if (key === "+" || key === "=") host.zoom(ZOOM_STEP);
    else if (key === "-") host.zoom(1 / ZOOM_STEP);
    else if (key === "0") host.zoom(0);
    else if (key === "s") {
      const select = dialog.querySelector("select[name=slab]");
      select.selectedIndex = (select.selectedIndex + 1) % SLABS.length;
      select.dispatchEvent(new Event("change"));
    } else if (key === "delete" || key === "backspace") clearRulers();
    else if ((key === "1" || key === "2") && host.sides[0].scan.hounsfield) dialog.querySelectorAll("input[name=preset]")[Number(key) - 1].click();
    else if (key === "m") {
      const show = !(chosen.circles || chosen.boxes);
      for (const name of ["circles", "boxes"]) dialog.querySelector(`input[name=${name}]`).checked = chosen[name] = show;
      host.applyMarks();
    } else if (key === "?") toggleHelp();
    else return false;
    return true;
  };
  chooseTool(chosen.tool);
  return element(
    "div",
    { className: "toolbar", role: "toolbar", "aria-label": "tools" },
    windows.root, dragTools(), zoomTools(host), slabTools(host), showTools(host), clear, host.status,
  );
}
