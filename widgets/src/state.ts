// What the Python side syncs; `_live.py` writes these, key by key.

export type Status = "starting" | "queued" | "running" | "paused" | "stopping" | "finished" | "stopped" | "failed" | "interrupted";

export interface Note {
  level: string;
  text: string;
}

/** What can be asked of a run; "set" is the learning rate. */
export type Action = "stop" | "pause" | "resume" | "evaluate" | "sample" | "checkpoint" | "set";

export interface Request {
  type: Action;
  learning_rate?: number;
}

export interface Mark {
  step: number;
  text: string;
}

export type Part = "data" | "forward" | "backward" | "optimizer";

export interface State {
  id: string;
  name: string;
  method: string;
  seq: number;
  beat: number;
  status: Status;
  phase: string;
  step: number;
  total_steps: number | null;
  seconds: number | null;
  seconds_left: number | null;
  metric: string;
  score: number | null;
  dev_loss: number | null;
  checkpoint_step: number | null;
  /** Dev loss less train loss, and the plain word about it, "" while there is nothing to say. */
  gap: number | null;
  gap_text: string;
  best_step: number | null;
  fill: number | null;
  /** Seconds of a mean step; empty where they are not known. */
  parts: Partial<Record<Part, number | null>>;
  skipped: number;
  marks: Mark[];
  /** Asked for and not yet taken effect; how many of each kind did; how many could not be asked for. */
  asked: Action[];
  controls: Partial<Record<Action, number>>;
  refused: number;
  /** The learning rate at the top of its course, which is what can be set. */
  peak_rate: number | null;
  answer: { level: string; text: string; hint: string } | null;
  notes: Note[];
  error: string;
  hint: string;
  epoch?: number | null;
  loss?: number | null;
  learning_rate?: number | null;
  tokens_per_second?: number | null;
  memory_bytes?: number | null;
  /** The most that the run is expected to have in use at once; told before its first step, set right after its third. */
  expected_memory_bytes?: number | null;
  num_rows?: number;
  trainable_parameters?: number;
  total_parameters?: number;
  device?: string;
  dtype?: string;
}

export interface Sample {
  step: number;
  prompt: string;
  expected: string;
  output: string;
  right: boolean;
}

export type Traits = { state: State; samples: Sample[]; history: DataView };

const OVER: ReadonlySet<Status> = new Set<Status>(["finished", "stopped", "failed", "interrupted"]);

export function isOver(status: Status): boolean {
  return OVER.has(status);
}
