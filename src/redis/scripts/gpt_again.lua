-- gpt_again: gives a question that was given up a second chance, once for each dead letter.
--
-- In one step, in the slot of its room, what ended it is taken back and it is asked anew; so it is either ended or asked, and
-- its second life has exactly one end like the first. What an earlier claim still writes is refused. A letter of an earlier
-- life than the last that began is over: it would bring that life's claims back.
--
-- KEYS  1 what ended the question  2 the dead letter for which it was last asked anew  3 outbox of questions that are not
--       queued yet  4 replies of the room that are being written  5 live channel
-- ARGV  1 dead letter  2 room  3 question  4 user  5 trace context  6 generation of its last claim  7 reply
--       8 PUBLISH or SPUBLISH  9 message for the channel  10 how long the dead letter is remembered, ms
-- Returns again; before, when this was done before, or for a later one; answered, when it has a reply.
local PART_MS = 10 * 60 * 1000   -- as in gpt_part
local generation, remembered = tonumber(ARGV[6]), tonumber(ARGV[10])
local letter_ms, letter_number = string.match(ARGV[1], '^(%d+)-(%d+)$')
letter_ms, letter_number = tonumber(letter_ms), tonumber(letter_number)
if not generation or not remembered or not letter_ms then return redis.error_reply('ERR gpt_again: bad arguments') end
-- wrong key types fail here, before anything is written
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
local last_ms, last_number = string.match(redis.call('GET', KEYS[2]) or '0-0', '^(%d+)-(%d+)$')
last_ms, last_number = tonumber(last_ms), tonumber(last_number)
if letter_ms < last_ms or letter_ms == last_ms and letter_number <= last_number then return 'before' end
local ended = redis.call('GET', KEYS[1])
-- gpt_fail's mark, or forgotten after its time; a reply has another
if ended and string.sub(ended, 1, 4) ~= 'gpt|' then return 'answered' end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', remembered)
redis.call('HSET', KEYS[4], ARGV[7], string.format('%d', generation + 1) .. '|-1|')
redis.call('PEXPIRE', KEYS[4], PART_MS)
-- As many as there are dead letters, however full the outbox is: these were accepted before.
redis.call('XADD', KEYS[3], '*', 'r', ARGV[2], 'i', ARGV[3], 'u', ARGV[4], 't', ARGV[5], 'g', ARGV[6])
redis.call(ARGV[8], KEYS[5], ARGV[9])
redis.call('PUBLISH', 'rc:{gpt}:asked', '')
return 'again'
