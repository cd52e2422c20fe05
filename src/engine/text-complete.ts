/**
 * The reason with which a caller aborts a request because its text is complete: a stop string was found, which only
 * the caller can see. Such a request finishes with "stop" and not with "abort".
 */
export const TEXT_COMPLETE: unknown = new DOMException("the text is complete", "AbortError");
