// What the pages are drawn with: Preact, its hooks, signals, and htm in place of JSX.
export { Fragment, h, render } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, untracked, useComputed, useSignal } from "@preact/signals";
export { default as htm } from "htm";
