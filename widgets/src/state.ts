// What the Python side syncs; `_live.py` writes these, key by key.

export type Status = "starting" | "queued" | "running" | "paused" | "stopping" | "finished" | "stopped" | "failed" | "interrupted";

export interface Note {
  level: string;
  text: string;
}

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
  notes: Note[];
  error: string;
  hint: string;
  epoch?: number | null;
  loss?: number | null;
  learning_rate?: number | null;
  tokens_per_second?: number | null;
  memory_bytes?: number | null;
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
