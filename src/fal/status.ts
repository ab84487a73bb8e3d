/** What the queue says about a request, in the words of `@fal-ai/client` 1.10, `types/common.d.ts`. */

/** A line that a request has written. */
export interface RequestLog {
  message: string;
  /** The engine writes INFO and WARN. */
  level: 'STDERR' | 'STDOUT' | 'ERROR' | 'INFO' | 'WARN' | 'DEBUG';
  source: 'USER';
  /** ISO 8601. */
  timestamp: string;
}

interface BaseStatus {
  request_id: string;
  response_url: string;
  status_url: string;
  cancel_url: string;
}

export interface InQueueStatus extends BaseStatus {
  status: 'IN_QUEUE';
  /** Requests that wait before this one; the one that runs is not counted. */
  queue_position: number;
}

export interface InProgressStatus extends BaseStatus {
  status: 'IN_PROGRESS';
  /** Empty unless asked for. */
  logs: RequestLog[];
}

export interface CompletedStatus extends BaseStatus {
  /** The request is over; whether it succeeded is for its result to say. */
  status: 'COMPLETED';
  logs: RequestLog[];
  /** Seconds of the work itself; null when there was none. */
  metrics?: { inference_time: number | null };
}

export type QueueStatus = InQueueStatus | InProgressStatus | CompletedStatus;

/** Addresses of a request below a base such as `https://queue.fal.run`. */
export function requestUrls(base: string, application: string, id: string): Omit<BaseStatus, 'request_id'> {
  const request = `${base}/${application}/requests/${id}`;
  return { response_url: request, status_url: `${request}/status`, cancel_url: `${request}/cancel` };
}
