import { mount } from "svelte";

import { actions, desktop } from "./lib/tauri";
import { wordsFor } from "./lib/words";
import NowPage from "./parts/NowPage.svelte";
import "./style.css";

const words = wordsFor(navigator.languages);
document.documentElement.lang = words.language;
mount(NowPage, { target: document.getElementById("app")!, props: { source: desktop, words, actions } });
