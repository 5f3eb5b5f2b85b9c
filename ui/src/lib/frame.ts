const corners = ["top-left", "top-right", "bottom-left", "bottom-right"] as const;

/** Where a browser source shows the pill, and how large. */
export type Frame = { corner: (typeof corners)[number]; scale: number };

/** Reads `?corner=top-left&scale=2`; what is missing or makes no sense is as on the desktop. */
export function frameOf(search: string): Frame {
  const asked = new URLSearchParams(search);
  const scale = Number(asked.get("scale") ?? 1);
  return {
    corner: corners.find((corner) => corner === asked.get("corner")) ?? "bottom-right",
    scale: scale >= 0.5 && scale <= 8 ? scale : 1,
  };
}
