import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  clearScreen: false,
  build: {
    target: "safari16",
    // The content security policy of the pages forbids inline scripts.
    modulePreload: { polyfill: false },
    // The policy also forbids `data:` URLs.
    assetsInlineLimit: 0,
    rollupOptions: { input: { main: "index.html", overlay: "overlay.html", dashboard: "dashboard.html" } },
  },
  // Longer than the waits within a test.
  test: { environment: "jsdom", testTimeout: 60_000, include: ["src/**/*.test.ts"] },
});
