import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  clearScreen: false,
  build: {
    target: "safari16",
    // The pages run under a policy without inline script.
    modulePreload: { polyfill: false },
    rollupOptions: { input: { main: "index.html", overlay: "overlay.html" } },
  },
  test: { environment: "jsdom", include: ["src/**/*.test.ts"] },
});
