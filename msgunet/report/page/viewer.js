// The image browser: two images with a divider, or all images side by side, with a common zoom and position.
// OpenSeadragon displays the images; window.suite lists them.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const pick = { dataset: byId("dataset"), left: byId("left"), right: byId("right"), order: byId("order"), metric: byId("metric"), protocol: byId("protocol") };
  const state = { data: null, images: [], at: 0, side: false, error: false, turn: 0 };
  let panes = []; // {viewer, box, roles, item: the upper image, cut: its left edge in pixels, edge}
  let busy = false; // while one viewer moves the others

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));
  const titleOf = (role) => {
    const method = state.data.methods.find((m) => m.role === role);
    return method ? `${method.title} (${method.size})` : role;
  };
  const urlOf = (role, image) => `${state.data.folder}/${role}/${image.file}.png`;
  const rolesOf = (data) => ["source", "target", ...data.methods.map((m) => m.role)];
  const metricOf = (name) => state.data.metrics.find((m) => m.name === name);
  const current = () => state.images[state.at];

  function viewerIn(box) {
    const viewer = OpenSeadragon({
      element: box,
      drawer: "canvas", // WebGL cannot read images from disk
      showNavigationControl: false,
      preserveViewport: true,
      maxZoomPixelRatio: 16,
      visibilityRatio: 0.3,
      animationTime: 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    for (const event of ["zoom", "pan", "resize"]) viewer.addHandler(event, () => follow(viewer));
    for (const event of ["animation", "resize", "open", "update-viewport"]) viewer.addHandler(event, divide);
    return viewer;
  }

  // Keep all viewers at the same zoom and position.
  function follow(leader) {
    if (busy || !leader.world.getItemCount()) return;
    busy = true;
    for (const { viewer } of panes) {
      if (viewer === leader || !viewer.world.getItemCount()) continue;
      viewer.viewport.zoomTo(leader.viewport.getZoom(), null, true);
      viewer.viewport.panTo(leader.viewport.getCenter(), true);
    }
    busy = false;
    const item = leader.world.getItemAt(0);
    // Show pixels unsmoothed once they are large.
    for (const { viewer } of panes) viewer.drawer.setImageSmoothingEnabled(item.viewportToImageZoom(leader.viewport.getZoom()) < 2);
  }

  // Clip the upper image left of the divider.
  function divide() {
    const pane = panes[0];
    if (state.side || !pane) return;
    const share = state.error ? 0 : byId("divider").value / 1000;
    pane.edge.style.left = `${100 * share}%`;
    if (!pane.item) return;
    const size = pane.item.getContentSize();
    const x = pane.item.viewerElementToImageCoordinates(new OpenSeadragon.Point(share * pane.box.clientWidth, 0)).x;
    const cut = Math.min(Math.max(x, 0), size.x);
    if (cut === pane.cut) return;
    pane.cut = cut;
    // A clip of zero width would mean no clip, and the whole image is best drawn without one.
    pane.item.setOpacity(cut < size.x ? 1 : 0);
    pane.item.setClip(cut > 0 ? new OpenSeadragon.Rect(cut, 0, Math.max(size.x - cut, 1), size.y) : null);
  }

  function paneFor(roles) {
    const box = make("div", { className: "canvas" });
    const edge = make("div", { className: "edge", hidden: state.side || state.error });
    const names = state.side ? [state.error ? `${titleOf(roles[1])} − target` : titleOf(roles[1])] : roles.map(titleOf);
    const labels = names.map((text, i) => make("span", { className: `name ${i ? "second" : "first"}`, textContent: text }));
    const outer = make("div", { className: "viewer" }, box, ...labels, edge);
    outer.classList.toggle("error", state.error);
    byId("viewers").append(outer);
    const viewer = viewerIn(box);
    viewer.canvas.setAttribute("role", "img");
    viewer.canvas.setAttribute("aria-label", names.join(" and "));
    return { viewer, box, edge, roles, item: null, cut: null };
  }

  // Build new panes for other roles or another view, and keep the position.
  function build() {
    const old = panes[0];
    let place = null; // stays null if the whole image was in view
    if (old && old.viewer.world.getItemCount()) {
      const { viewport } = old.viewer;
      const zoom = viewport.getZoom();
      if (Math.abs(zoom / viewport.getHomeZoom() - 1) > 0.01) place = { zoom, center: viewport.getCenter() };
    }
    const focused = panes.some((pane) => pane.box.contains(document.activeElement));
    for (const pane of panes) pane.viewer.destroy();
    byId("viewers").replaceChildren();
    byId("viewers").classList.toggle("side", state.side);
    byId("divider").hidden = state.side || state.error;
    byId("legend").hidden = !state.error;
    const roles = state.error ? state.data.methods.map((m) => m.role) : rolesOf(state.data);
    panes = state.side ? roles.map((role) => paneFor(["target", role])) : [paneFor([pick.left.value, pick.right.value])];
    if (focused) panes[0].viewer.canvas.focus({ preventScroll: true });
    load(place);
  }

  // Load the current image into all panes.
  function load(place = null) {
    state.turn += 1;
    const turn = state.turn;
    for (const pane of panes) {
      const alone = state.side && !state.error;
      const roles = alone ? [pane.roles[1]] : pane.roles;
      const kept = [...Array(pane.viewer.world.getItemCount()).keys()].map((i) => pane.viewer.world.getItemAt(i));
      pane.item = pane.cut = null;
      roles.forEach((role, i) => {
        pane.viewer.addTiledImage({
          tileSource: { type: "image", url: urlOf(role, current()) },
          x: 0,
          y: 0,
          width: 1,
          compositeOperation: state.error && i ? "difference" : undefined,
          success: ({ item }) => {
            // Another image has been requested since.
            if (turn !== state.turn) return pane.viewer.world.removeItem(item);
            if (i) pane.item = item;
            if (i + 1 < roles.length) return;
            for (const gone of kept) pane.viewer.world.removeItem(gone);
            if (!kept.length && !place) pane.viewer.viewport.goHome(true);
            if (place) {
              pane.viewer.viewport.zoomTo(place.zoom, null, true);
              pane.viewer.viewport.panTo(place.center, true);
            }
            divide();
          },
          error: () => {
            if (turn === state.turn) for (const gone of kept) pane.viewer.world.removeItem(gone);
          },
        });
      });
    }
    showValues();
  }

  function showValues() {
    byId("image-name").textContent = `${current().id} (${state.at + 1} of ${state.images.length})`;
    const { methods, metrics, protocols } = state.data;
    const tables = protocols.map((protocol) => {
      const head = make("tr", {}, make("th", { textContent: protocols.length > 1 ? protocol : "Method", scope: "col" }));
      for (const { heading } of metrics) head.append(make("th", { textContent: heading, className: "number", scope: "col" }));
      const best = ({ name, higher }) => {
        const values = methods.map(({ entry }) => current().values[entry][protocol][name] ?? (higher ? -Infinity : Infinity));
        return higher ? Math.max(...values) : Math.min(...values);
      };
      const rows = methods.map(({ entry, title }) => {
        const row = make("tr", {}, make("th", { textContent: title, scope: "row" }));
        for (const metric of metrics) {
          const value = current().values[entry][protocol][metric.name];
          const text = value === null ? "undefined" : value.toFixed(metric.digits).replace("-", "−");
          const cell = make("td", { className: "number" }, value === best(metric) ? make("strong", { textContent: text }) : text);
          row.append(cell);
        }
        return row;
      });
      return make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    });
    byId("metrics").replaceChildren(...tables);
    for (const button of byId("thumbnails").querySelectorAll("button")) {
      const here = button.dataset.id === current().id;
      button.setAttribute("aria-current", String(here));
      if (here) {
        const list = byId("thumbnails");
        const left = button.offsetLeft - list.offsetLeft;
        if (left < list.scrollLeft || left + button.offsetWidth > list.scrollLeft + list.clientWidth) list.scrollLeft = left - list.clientWidth / 2;
      }
    }
  }

  // The sort key of the thumbnails: the largest comes first.
  function rank(one) {
    const metric = pick.metric.value;
    const value = (entry) => one.values[entry]?.[pick.protocol.value][metric] ?? null;
    const all = state.data.methods.map(({ entry }) => value(entry)).filter((v) => v !== null);
    const right = value(state.data.methods.find(({ role }) => role === pick.right.value)?.entry);
    if (pick.order.value === "disagreement") return all.length ? Math.max(...all) - Math.min(...all) : null;
    if (right === null || !["worst", "best"].includes(pick.order.value)) return null;
    return (pick.order.value === "best") === metricOf(metric).higher ? right : -right;
  }

  function sort(select = null) {
    const ranked = state.data.images.map((one) => [rank(one), one]);
    if (pick.order.value !== "name") ranked.sort((a, b) => (b[0] ?? -Infinity) - (a[0] ?? -Infinity));
    state.images = ranked.map(([, one]) => one);
    state.at = Math.max(0, state.images.indexOf(select));
    byId("thumbnails").replaceChildren(
      ...ranked.map(([value, one]) => {
        const image = make("img", { loading: "lazy", alt: "", src: `${state.data.folder}/thumbnails/${one.file}.jpg` });
        const text = value === null || pick.order.value === "name" ? "" : Math.abs(value).toFixed(metricOf(pick.metric.value).digits);
        const button = make("button", { type: "button", title: one.id }, image, make("span", { textContent: one.id }), make("span", { textContent: text }));
        button.dataset.id = one.id;
        button.addEventListener("click", () => go(state.images.indexOf(one)));
        return make("li", {}, button);
      }),
    );
  }

  function go(at) {
    state.at = (at + state.images.length) % state.images.length;
    load();
  }

  function choose(name) {
    state.data = window.suite.find((data) => data.name === name);
    const roles = rolesOf(state.data).map((role) => [role, titleOf(role)]);
    options(pick.left, roles);
    options(pick.right, roles);
    pick.left.value = "target";
    pick.right.value = state.data.methods.at(-1).role;
    options(pick.metric, state.data.metrics.map(({ name, heading }) => [name, heading]));
    options(pick.protocol, state.data.protocols.map((p) => [p, p]));
    byId("protocol-label").hidden = state.data.protocols.length < 2;
    for (const pane of panes) pane.viewer.world.removeAll();
    sort();
    build();
  }

  function toggle(what, value) {
    state[what] = value;
    byId("slider-view").setAttribute("aria-pressed", String(!state.side));
    byId("side-view").setAttribute("aria-pressed", String(state.side));
    byId("error").setAttribute("aria-pressed", String(state.error));
    build();
  }

  function zoom(factor) {
    const { viewport, world } = panes[0].viewer;
    if (!world.getItemCount()) return;
    if (factor === "fit") viewport.goHome();
    else if (factor === "pixels") viewport.zoomTo(world.getItemAt(0).imageToViewportZoom(1));
    else viewport.zoomBy(factor).applyConstraints();
  }

  const actions = {
    "slider-view": () => toggle("side", false),
    "side-view": () => toggle("side", true),
    error: () => toggle("error", !state.error),
    "zoom-in": () => zoom(1.5),
    "zoom-out": () => zoom(1 / 1.5),
    fit: () => zoom("fit"),
    pixels: () => zoom("pixels"),
    previous: () => go(state.at - 1),
    next: () => go(state.at + 1),
  };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
  const keys = { n: actions.next, p: actions.previous, e: actions.error, v: () => toggle("side", !state.side), "+": actions["zoom-in"], "-": actions["zoom-out"], 0: actions.fit };
  document.addEventListener(
    "keydown",
    (event) => {
      const action = keys[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
      event.preventDefault();
      event.stopPropagation();
      action();
    },
    true,
  );
  byId("divider").addEventListener("input", divide);
  pick.dataset.addEventListener("change", () => choose(pick.dataset.value));
  pick.left.addEventListener("change", build);
  pick.right.addEventListener("change", () => {
    if (["worst", "best"].includes(pick.order.value)) sort(current());
    build();
  });
  for (const select of [pick.order, pick.metric, pick.protocol]) {
    select.addEventListener("change", () => {
      sort();
      load();
    });
  }
  options(pick.dataset, window.suite.map(({ name }) => [name, name]));
  byId("dataset-label").hidden = window.suite.length < 2;
  choose(window.suite[0].name);
  window.browser = { panes: () => panes, state }; // for tests and the console
})();
