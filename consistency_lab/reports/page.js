"use strict";
// Everything is in the page: pixels as base64 bytes (row, time, column, height, width, channel), drawn at their own size and
// enlarged by the style sheet without smoothing.
followReader(document.querySelector(".contents"));
skipWhatFits([...document.querySelectorAll(".scroll, .drawing")]);
for (const section of document.querySelectorAll(".comparison")) {
  showMetric(section);
  const block = section.querySelector(".payload");
  if (block) showGallery(section, JSON.parse(block.textContent));
}

// Marks the link to the last place that begins above the upper third of the window, and keeps it in sight.
function followReader(contents) {
  const links = [...contents.querySelectorAll("a")];
  const places = links.map((link) => document.getElementById(link.hash.slice(1)));
  let marked = null;
  const mark = () => {
    const atEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
    const above = places.map((place) => place.getBoundingClientRect().top <= innerHeight / 3);
    const link = links[atEnd ? links.length - 1 : Math.max(0, above.lastIndexOf(true))];
    if (link === marked) return;
    if (marked) marked.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    marked = link;
    const box = link.getBoundingClientRect(), frame = contents.getBoundingClientRect();
    contents.scrollLeft += box.left - frame.left - (frame.width - box.width) / 2;
    contents.scrollTop += box.top - frame.top - (frame.height - box.height) / 2;
  };
  addEventListener("scroll", mark, {passive: true});
  addEventListener("resize", mark);
  mark();
}

// What can be moved sideways is reached by the keyboard; what fits into the window need not stop it.
function skipWhatFits(boxes) {
  const look = () => {
    const moves = boxes.map((box) => box.scrollWidth > box.clientWidth);
    boxes.forEach((box, i) => moves[i] ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex"));
  };
  addEventListener("resize", look);
  addEventListener("toggle", look, true);
  addEventListener("change", look);
  look();
}

function showMetric(section) {
  const radios = [...section.querySelectorAll(".switch input")];
  const choose = (metric) => {
    for (const radio of radios) radio.checked = radio.value === metric;
    for (const panel of section.querySelectorAll(".panel")) panel.hidden = panel.dataset.metric !== metric;
  };
  const first = section.querySelector(".panel");
  if (first) choose(first.dataset.metric);
  for (const radio of radios) radio.addEventListener("change", () => {
    const before = radio.getBoundingClientRect().top;
    choose(radio.value);
    // The panels above change height too: keep the switch under the reader's hand.
    window.scrollBy(0, radio.getBoundingClientRect().top - before);
  });
}

function showGallery(section, data) {
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const bytes = decode(data.bytes);
  const pixels = section.querySelector(".pixels");
  pixels.href = URL.createObjectURL(new Blob([decode(data.npy), bytes.subarray(0, data.models)]));
  pixels.hidden = false;
  const size = data.height * data.width * data.channels;
  const last = data.times.length - 1;

  function draw(canvas, time) {
    const row = data.rows[canvas.dataset.row];
    const at = Math.min(time, row.times - 1);
    const start = row.offset + (at * row.columns + Number(canvas.dataset.column)) * size;
    const context = canvas.getContext("2d");
    const image = context.createImageData(data.width, data.height);
    for (let pixel = 0; pixel < data.width * data.height; pixel++) {
      const values = bytes.subarray(start + pixel * data.channels, start + (pixel + 1) * data.channels);
      const grey = values.reduce((sum, value) => sum + value, 0) / data.channels;
      for (let channel = 0; channel < 3; channel++) {
        image.data[4 * pixel + channel] = data.channels === 3 ? values[channel] : grey;
      }
      image.data[4 * pixel + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  for (const canvas of section.querySelectorAll("canvas")) draw(canvas, last);
  const slider = section.querySelector(".time");
  if (!slider) return;  // the final images alone
  const now = section.querySelector(".now");
  const moving = [...section.querySelectorAll("canvas[data-moves]")];
  const show = () => {
    const time = Number(slider.value);
    now.textContent = data.times[time];
    slider.setAttribute("aria-valuetext", data.times[time]);
    for (const canvas of moving) draw(canvas, time);
  };
  slider.addEventListener("input", show);
  // Browsers keep the slider's place over a reload.
  show();

  const play = section.querySelector(".play");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    play.textContent = "Stop";
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) >= last) stop();
    }, 250);
  });
}
