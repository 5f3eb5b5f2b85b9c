import { mount } from "svelte";

import { desktop } from "./lib/tauri";
import OverlayPage from "./parts/OverlayPage.svelte";
import "./style.css";

mount(OverlayPage, { target: document.getElementById("app")!, props: { source: desktop, languages: navigator.languages } });
