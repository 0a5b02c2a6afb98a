// What the package offers.

export { RoomcastClient, type ClientEvents, type ClientOptions } from './client.js';
export { RoomCursor, type PageStep, type Step, type Want } from './cursor.js';
export { Emitter } from './emitter.js';
export type { ConnectionState, Credentials, IoFunction, LinkOptions } from './link.js';
export { Outbox, type MessagePayload, type Outcome, type OutboxEntry } from './outbox.js';
export {
  isGptMessage, RoomcastError, type Cursor, type Failure, type GptDelta, type GptError, type GptMessage, type GptQueued, type GptReset, type Notice, type PageInfo,
  type PartOfReply, type Receipt, type RoomEvent, type RoomUpdate, type Tokens,
} from './protocol.js';
export { parseRefusal } from './refusal.js';
export type { Reply, ReplyProblem } from './replies.js';
export { ReplyText } from './reply-text.js';
export type { Page } from './rooms.js';
export { memoryStorage, webStorage, type OutboxStorage } from './storage.js';
export { Timeline } from './timeline.js';
