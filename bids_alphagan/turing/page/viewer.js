"use strict";
// One scan's slices on a canvas: slice, window and visible part. Independent of sessions.

function Viewer(canvas, kit, changed) {
  var self = this, context = canvas.getContext("2d"), slice = document.createElement("canvas");
  var paper = slice.getContext("2d"), picture, grey = null, table = new Uint8ClampedArray(256);
  slice.width = kit.columns;
  slice.height = kit.rows;
  picture = paper.createImageData(kit.columns, kit.rows);
  this.z = 0;
  this.brightness = this.contrast = 0;  // -100 ... 100
  this.zoom = 1;  // 1 ... 12
  this.x = this.y = 0;  // centre of the view, in parts of the slice, 0 at its centre
  this.drag = "slice";

  this.show = function (bytes) {
    grey = bytes;
    self.z = Math.floor(kit.slices / 2);
    self.whole();
  };
  this.clear = function () { grey = null; draw(); };
  this.whole = function () { self.zoom = 1; self.x = self.y = 0; update(); };
  this.plain = function () { self.brightness = self.contrast = 0; self.whole(); };
  this.toSlice = function (z) { self.z = clip(Math.round(z), 0, kit.slices - 1); update(); };
  this.toWindow = function (brightness, contrast) {
    self.brightness = clip(Math.round(brightness), -100, 100);
    self.contrast = clip(Math.round(contrast), -100, 100);
    update();
  };
  // Zoom by a factor about a point of the canvas (in parts of the canvas, from its centre).
  this.zoomBy = function (factor, px, py) {
    var before = self.zoom, box = fit();
    self.zoom = clip(self.zoom * factor, 1, 12);
    var change = 1 / before - 1 / self.zoom;
    self.moveTo(self.x + (px || 0) * canvas.clientWidth / box.width * change,
      self.y + (py || 0) * canvas.clientHeight / box.height * change);
  };
  this.moveTo = function (x, y) {
    var most = 0.5 * (1 - 1 / self.zoom);
    self.x = clip(x, -most, most);
    self.y = clip(y, -most, most);
    update();
  };

  function clip(value, low, high) { return Math.min(high, Math.max(low, value)); }

  function fit() {  // the slice's size at zoom 1, in CSS pixels
    var width = Math.min(canvas.clientWidth, canvas.clientHeight / kit.aspect);
    return { width: width || 1, height: width * kit.aspect || 1 };
  }
  function update() { draw(); changed(); }

  function draw() {
    var scale = window.devicePixelRatio || 1, box = fit();
    var width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (!grey) return;
    var level = 127.5 - 1.275 * self.brightness, range = 255 * Math.pow(2, -self.contrast / 33);
    for (var g = 0; g < 256; g++) table[g] = 255 * ((g - level) / range + 0.5);
    var n = kit.rows * kit.columns, at = self.z * n, pixels = picture.data;
    for (var i = 0; i < n; i++) {
      var shade = table[grey[at + i]];
      pixels[4 * i] = pixels[4 * i + 1] = pixels[4 * i + 2] = shade;
      pixels[4 * i + 3] = 255;
    }
    paper.putImageData(picture, 0, 0);
    var w = box.width * self.zoom * scale, h = box.height * self.zoom * scale;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(slice, width / 2 - (0.5 + self.x) * w, height / 2 - (0.5 + self.y) * h, w, h);
  }

  // Mouse: the wheel scrolls, with Ctrl it zooms; a drag has the chosen effect, with the right button it changes the window.
  // Touch: one finger drags, two fingers zoom and move.
  var pointers = new Map(), left = 0, turned = 0;
  function position(event) {
    var box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
  }
  function shift(dx, dy) {  // by parts of the canvas
    var box = fit();
    self.moveTo(self.x - dx * canvas.clientWidth / (box.width * self.zoom),
      self.y - dy * canvas.clientHeight / (box.height * self.zoom));
  }
  function dragged(mode, dx, dy) {
    if (mode === "window") self.toWindow(self.brightness - 200 * dy, self.contrast + 200 * dx);
    else if (mode === "move") shift(dx, dy);
    else {
      left += dy * Math.max(kit.slices, 12);
      var whole = Math.trunc(left);
      left -= whole;
      if (whole) self.toSlice(self.z - whole);
    }
  }
  canvas.addEventListener("pointerdown", function (event) {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, position(event));
    left = 0;
  });
  canvas.addEventListener("pointermove", function (event) {
    if (!pointers.has(event.pointerId)) return;
    var last = pointers.get(event.pointerId), now = position(event);
    if (pointers.size === 1) {
      dragged(event.buttons & 2 ? "window" : self.drag, now[0] - last[0], now[1] - last[1]);
    } else if (pointers.size === 2) {
      var other;
      pointers.forEach(function (point, id) { if (id !== event.pointerId) other = point; });
      var span = function (a) {
        return Math.hypot((a[0] - other[0]) * canvas.clientWidth, (a[1] - other[1]) * canvas.clientHeight);
      };
      self.zoomBy(span(now) / Math.max(span(last), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      shift((now[0] - last[0]) / 2, (now[1] - last[1]) / 2);
    }
    pointers.set(event.pointerId, now);
  });
  ["pointerup", "pointercancel"].forEach(function (name) {
    canvas.addEventListener(name, function (event) { pointers.delete(event.pointerId); });
  });
  canvas.addEventListener("contextmenu", function (event) { event.preventDefault(); });
  canvas.addEventListener("wheel", function (event) {
    event.preventDefault();
    var step = event.deltaY * (event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 300 : 1);
    if (event.ctrlKey || event.metaKey) { self.zoomBy(Math.exp(-step / 300), position(event)[0], position(event)[1]); return; }
    turned += step / 50;  // small steps of a touchpad add up; a notch of a wheel is one slice
    if (Math.abs(step) >= 50) turned = Math.sign(step);
    var whole = Math.trunc(turned);
    turned -= whole;
    if (whole) self.toSlice(self.z - whole);
  }, { passive: false });
  new ResizeObserver(draw).observe(canvas);
}
