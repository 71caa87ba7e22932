// What dragging does on a plane: the crosshair, the window, the section that is visible, or a ruler.

const TOOLS = {
  crosshair: { text: "crosshair", key: "c" },
  window: { text: "window", key: "w" },
  pan: { text: "move", key: "p" },
  ruler: { text: "ruler", key: "r" },
};
const TOUCH_PIXELS_PER_SLICE = 8;

/** Each starts with the event that begins a drag, and returns what to do when the pointer moves and when it is released. */
const DRAGS = {
  crosshair(pane, event) {
    pane.pointTo(event);
    return { move: (next) => pane.pointTo(next) };
  },
  window(pane, event) {
    const { scan } = pane.view;
    const { center, width } = windowOf(scan);
    const step = Math.max(scan.hounsfield ? 1 : 0.5, width / 400); // per pixel
    return {
      move(next) {
        setWindow(scan, Math.round(center + step * (next.clientY - event.clientY)), Math.round(width + step * (next.clientX - event.clientX)));
        pane.view.host.windowChanged();
      },
    };
  },
  pan(pane, event) {
    let last = event;
    return {
      move(next) {
        pane.zoom.pan(next.clientX - last.clientX, next.clientY - last.clientY);
        last = next;
      },
    };
  },
  ruler(pane, event) {
    const from = pane.edgeAt(event);
    const ruler = { pane: pane.name, index: pane.index, from, to: from };
    pane.view.rulers.push(ruler);
    return {
      move(next) {
        ruler.to = pane.edgeAt(next);
        pane.view.redraw([]);
      },
      end() {
        if (ruler.from === ruler.to) pane.view.rulers.pop();
        pane.view.redraw([]);
        pane.view.host.rulersChanged();
      },
    };
  },
  /** A finger scrolls; if it does not move, it sets the crosshair. */
  scroll(pane, event) {
    const { slot } = pane;
    let moved = false;
    return {
      move(next) {
        const by = Math.round((event.clientY - next.clientY) / TOUCH_PIXELS_PER_SLICE);
        moved ||= by !== 0;
        if (moved) pane.go(slot + by);
      },
      end(last) {
        if (!moved) pane.pointTo(last);
      },
    };
  },
  /** Two fingers enlarge and move. */
  pinch(pane, first, second) {
    const state = (a, b) => ({ x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2, span: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) });
    let last = state(first, second);
    return {
      moveTwo(a, b) {
        const next = state(a, b);
        pane.zoom.pan(next.x - last.x, next.y - last.y);
        if (last.span > 0) pane.zoom.by(next.span / last.span, next.x, next.y);
        last = next;
      },
    };
  },
};

/** The drag that a press of a pointer begins. */
function dragOf(event) {
  if (event.button === 2) return "window";
  if (event.button === 1) return "pan";
  return event.pointerType === "touch" && chosen.tool === "crosshair" ? "scroll" : chosen.tool;
}

/** Let the pointers act on a plane. */
function listenToPointers(pane) {
  const { stage } = pane;
  const pressed = new Map(); // the last event of each pointer that is down
  let drag = null;
  const release = (event, isDone) => {
    if (!pressed.delete(event.pointerId)) return;
    if (isDone) drag?.end?.(event);
    drag = null;
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    event.preventDefault(); // no scrolling by the middle button, and no selection of text
    stage.setPointerCapture(event.pointerId);
    pressed.set(event.pointerId, event);
    drag = pressed.size === 2 ? DRAGS.pinch(pane, ...pressed.values()) : pressed.size === 1 ? DRAGS[dragOf(event)](pane, event) : null;
  });
  stage.addEventListener("pointermove", (event) => {
    pane.describe(event);
    if (!pressed.has(event.pointerId)) return;
    pressed.set(event.pointerId, event);
    if (pressed.size === 2) drag?.moveTwo?.(...pressed.values());
    else drag?.move?.(event);
  });
  stage.addEventListener("pointerup", (event) => release(event, true));
  stage.addEventListener("pointercancel", (event) => release(event, false));
  stage.addEventListener("pointerleave", () => pane.describe(null));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
}

/** The length of a ruler in words. Without a spacing it is in voxels. */
function rulerText(scan, { pane, from, to }) {
  const { across, down } = PLANES[pane];
  const [dx, dy] = [(to[0] - from[0]) * steps(scan)[across], (to[1] - from[1]) * steps(scan)[down]];
  const length = Math.hypot(dx, dy);
  return scan.spacing ? `${length.toFixed(1)} mm` : `${length.toFixed(1)} voxels`;
}
