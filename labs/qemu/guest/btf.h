/*
 * Where the members of a few kernel structures are, from the type information that the kernel carries
 * (Documentation/bpf/btf.rst; uapi/linux/btf.h). Told as "@offset name=task_struct.pid bytes=...".
 */
#include <linux/btf.h>
#include <sys/stat.h>

static const struct btf_header *btf;
static const struct btf_type **btf_types;
static uint32_t btf_type_count;

static const char *btf_name(uint32_t offset)
{
	return (const char *)btf + btf->hdr_len + btf->str_off + offset;
}

/* Bytes that follow a type, by its kind. */
static size_t btf_extra(const struct btf_type *type)
{
	uint32_t count = BTF_INFO_VLEN(type->info);
	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return count * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return count * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return count * 12;
	case BTF_KIND_FUNC_PROTO:
		return count * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return count * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

/* The byte offset of a member, looked for in unnamed structures and unions too; -1 where there is none. */
static long btf_offset(const struct btf_type *type, const char *member)
{
	const struct btf_member *members = (const struct btf_member *)(type + 1);
	for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); i++) {
		long here = (BTF_INFO_KFLAG(type->info) ? BTF_MEMBER_BIT_OFFSET(members[i].offset) : members[i].offset) / 8;
		const char *name = btf_name(members[i].name_off);
		if (strcmp(name, member) == 0)
			return here;
		const struct btf_type *inner = members[i].type < btf_type_count ? btf_types[members[i].type] : NULL;
		if (*name || !inner)
			continue;
		uint32_t kind = BTF_INFO_KIND(inner->info);
		if (kind != BTF_KIND_STRUCT && kind != BTF_KIND_UNION)
			continue;
		long within = btf_offset(inner, member);
		if (within >= 0)
			return here + within;
	}
	return -1;
}

static void print_offsets(void)
{
	static const char *const wanted[][2] = {
		{ "task_struct", "tasks" }, { "task_struct", "pid" }, { "task_struct", "comm" },
		{ "task_struct", "mm" },    { "mm_struct", "pgd" },
	};
	struct stat status;
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	if (fd < 0 || fstat(fd, &status) != 0)
		fail("btf");
	char *bytes = malloc(status.st_size);
	btf_types = calloc(1 << 20, sizeof *btf_types);
	if (!bytes || !btf_types)
		fail("memory");
	for (ssize_t done = 0, got; done < status.st_size; done += got)
		if ((got = read(fd, bytes + done, status.st_size - done)) <= 0)
			fail("btf");
	close(fd);
	btf = (const struct btf_header *)bytes;
	const char *at = bytes + btf->hdr_len + btf->type_off, *end = at + btf->type_len;
	for (btf_type_count = 1; at < end && btf_type_count < 1 << 20; btf_type_count++) {
		btf_types[btf_type_count] = (const struct btf_type *)at;
		at += sizeof(struct btf_type) + btf_extra((const struct btf_type *)at);
	}
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		long offset = -1;
		for (uint32_t id = 1; offset < 0 && id < btf_type_count; id++)
			if (BTF_INFO_KIND(btf_types[id]->info) == BTF_KIND_STRUCT &&
			    strcmp(btf_name(btf_types[id]->name_off), wanted[i][0]) == 0)
				offset = btf_offset(btf_types[id], wanted[i][1]);
		if (offset < 0)
			fail(wanted[i][1]);
		printf("@offset name=%s.%s bytes=%ld\n", wanted[i][0], wanted[i][1], offset);
	}
	free(bytes);
	free(btf_types);
}
