import { mount } from "svelte";

import { desktop } from "./lib/tauri";
import { wordsFor } from "./lib/words";
import OverlayPage from "./parts/OverlayPage.svelte";
import "./style.css";

const words = wordsFor(navigator.languages);
document.documentElement.lang = words.language;
mount(OverlayPage, { target: document.getElementById("app")!, props: { source: desktop, words } });
