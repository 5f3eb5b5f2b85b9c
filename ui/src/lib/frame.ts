const corners = ["top-left", "top-right", "bottom-left", "bottom-right"] as const;

/** The corner and the scale of the pill in a browser source. */
export type Frame = { corner: (typeof corners)[number]; scale: number };

/** Parses `?corner=top-left&scale=2`; missing or invalid values are the desktop's. */
export function frameOf(search: string): Frame {
  const asked = new URLSearchParams(search);
  const scale = Number(asked.get("scale") ?? 1);
  return {
    corner: corners.find((corner) => corner === asked.get("corner")) ?? "bottom-right",
    scale: scale >= 0.5 && scale <= 8 ? scale : 1,
  };
}
