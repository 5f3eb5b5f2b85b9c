import { isTauri } from "@tauri-apps/api/core";
import { mount } from "svelte";

import { browserSource, type Open } from "./lib/browser";
import { frameOf } from "./lib/frame";
import { desktop } from "./lib/tauri";
import OverlayPage from "./parts/OverlayPage.svelte";
import "./style.css";

const inDesktop = isTauri();
if (!inDesktop) {
  const { corner, scale } = frameOf(location.search);
  document.body.classList.add("source", corner);
  document.body.style.setProperty("--scale", String(scale));
}

const open: Open = (onEvent, onBroken) => {
  const stream = new EventSource("/status/stream");
  stream.onmessage = ({ data }) => onEvent(data);
  stream.onerror = onBroken;
  return () => stream.close();
};

const source = inDesktop ? desktop : browserSource(open);
/** In a browser source, nothing is drawn for this long while the first status is loading, in milliseconds. */
const patience = inDesktop ? 0 : 2000;
const props = { source, languages: navigator.languages, patience };
mount(OverlayPage, { target: document.getElementById("app")!, props });
