/** The hosted endpoint whose request and answer are ours. */
export const ENDPOINT_ID = 'fal-ai/wan/v2.2-a14b/text-to-video';

/** Owner and alias of {@link ENDPOINT_ID}: what the queue's paths of a single request begin with. */
export const APPLICATION_ID = 'fal-ai/wan';
